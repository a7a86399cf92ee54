//! Activations in storage, read and written four columns at a time.

use kiln_bundle::Access;

use super::builder::{Array, Builder, F32, IntoValue, U32, Vec4};

/// An f32 activation matrix.
#[derive(Clone, Copy)]
pub struct Quads<'b> {
    b: &'b Builder,
    cols: u32,
    array: QuadArray<'b>,
}

#[derive(Clone, Copy)]
enum QuadArray<'b> {
    Vectors(Array<'b, [f32; 4]>),
    Singles(Array<'b, f32>),
}

impl<'b> Quads<'b> {
    /// Binds a matrix with `cols` columns, as vectors where rows hold whole ones.
    pub fn bind(b: &'b Builder, name: &str, cols: u32, access: Access) -> Self {
        let array = match cols % 4 {
            0 => QuadArray::Vectors(b.storage(name, access)),
            _ => QuadArray::Singles(b.storage(name, access)),
        };
        Quads { b, cols, array }
    }

    /// Columns `4 quad .. 4 quad + 4` of `row`; zeros beyond the last column, which are only looked for if `guarded`.
    pub fn load(&self, row: impl IntoValue<'b, u32>, quad: U32<'b>, guarded: bool) -> Vec4<'b> {
        let row = row.value(self.b);
        match self.array {
            QuadArray::Vectors(array) => {
                let quads = self.cols / 4;
                let start = row * quads;
                match guarded {
                    false => array.load(start + quad),
                    true => {
                        let there = array.load(start + quad.min(quads - 1));
                        quad.lt(quads).select(there, self.b.zero())
                    }
                }
            }
            QuadArray::Singles(array) => {
                let start = row * self.cols;
                let columns = (0..4).map(|i| quad * 4 + i);
                let numbers: Vec<F32> = columns
                    .map(|column| {
                        let there = array.load(start + column.min(self.cols - 1));
                        column.lt(self.cols).select(there, 0.0)
                    })
                    .collect();
                self.b.vector(&numbers)
            }
        }
    }

    /// Sets columns `4 quad .. 4 quad + 4` of `row`, as far as there are such.
    pub fn store(&self, row: U32<'b>, quad: U32<'b>, value: Vec4<'b>, guarded: bool) {
        match self.array {
            QuadArray::Vectors(array) => {
                let quads = self.cols / 4;
                let store = || array.store(row * quads + quad, value);
                match guarded {
                    true => self.b.if_(quad.lt(quads), store),
                    false => store(),
                }
            }
            QuadArray::Singles(array) => {
                let value = value.named("value");
                for i in 0..4 {
                    let column = quad * 4 + i;
                    self.b.if_(column.lt(self.cols), || {
                        array.store(row * self.cols + column, value.component(i));
                    });
                }
            }
        }
    }
}
