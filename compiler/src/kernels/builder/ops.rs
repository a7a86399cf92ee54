use naga::{BinaryOperator as Op, Expression, MathFunction as Math};

use super::value::{Bool, F32, Float, Integer, IntoValue, Kind, Number, U32, Value, Vec4};
use super::{Builder, State};

impl<'b, T: Kind> Value<'b, T> {
    fn math<U>(self, fun: Math, arguments: &[Value<'b, T>]) -> Value<'b, U> {
        let argument = |index: usize| arguments.get(index).map(|value| value.handle);
        self.builder.expression(Expression::Math {
            fun,
            arg: self.handle,
            arg1: argument(0),
            arg2: argument(1),
            arg3: argument(2),
        })
    }

    fn convert<U: Kind>(self, bitcast: bool) -> Value<'b, U> {
        self.builder.state.borrow_mut().intern::<U>();
        self.builder.expression(Expression::As {
            expr: self.handle,
            kind: U::SCALAR.kind,
            convert: (!bitcast).then_some(U::SCALAR.width),
        })
    }

    /// Converts by value: `f32(x)`, `vec4<f32>(v)`. Sizes must agree.
    pub fn cast<U: Kind>(self) -> Value<'b, U> {
        self.convert(false)
    }

    /// The same bits as another type of the same width.
    pub fn bitcast<U: Kind>(self) -> Value<'b, U> {
        self.convert(true)
    }

    /// The value itself, for code that is generic over types that may be one and the same.
    ///
    /// # Panics
    /// `U` is another type.
    pub fn same<U: Kind>(self) -> Value<'b, U> {
        assert!(T::SCALAR == U::SCALAR && T::SIZE == U::SIZE, "not the same type");
        self.builder.value(self.handle)
    }

    /// Component `index` of a vector.
    pub fn component(self, index: u32) -> Value<'b, T::Component> {
        self.builder.expression(Expression::AccessIndex {
            base: self.handle,
            index,
        })
    }

    /// Component at an index known at run time.
    pub fn component_at(self, index: U32<'b>) -> Value<'b, T::Component> {
        self.builder.expression(Expression::Access {
            base: self.handle,
            index: index.handle,
        })
    }
}

impl<'b, T: Kind> Value<'b, [T; 2]>
where
    [T; 2]: Kind<Component = T>,
{
    pub fn x(self) -> Value<'b, T> {
        self.component(0)
    }
    pub fn y(self) -> Value<'b, T> {
        self.component(1)
    }
}

impl<'b, T: Kind> Value<'b, [T; 3]>
where
    [T; 3]: Kind<Component = T>,
{
    pub fn x(self) -> Value<'b, T> {
        self.component(0)
    }
    pub fn y(self) -> Value<'b, T> {
        self.component(1)
    }
    pub fn z(self) -> Value<'b, T> {
        self.component(2)
    }
}

impl<'b, T: Number> Value<'b, T> {
    pub fn min(self, other: impl IntoValue<'b, T>) -> Self {
        self.math(Math::Min, &[other.value(self.builder)])
    }
    pub fn max(self, other: impl IntoValue<'b, T>) -> Self {
        self.math(Math::Max, &[other.value(self.builder)])
    }
    pub fn abs(self) -> Self {
        self.math(Math::Abs, &[])
    }
    /// `self < other`; scalars only, as all comparisons here.
    pub fn lt(self, other: impl IntoValue<'b, T>) -> Bool<'b> {
        self.binary(Op::Less, other.value(self.builder))
    }
    pub fn le(self, other: impl IntoValue<'b, T>) -> Bool<'b> {
        self.binary(Op::LessEqual, other.value(self.builder))
    }
    pub fn gt(self, other: impl IntoValue<'b, T>) -> Bool<'b> {
        self.binary(Op::Greater, other.value(self.builder))
    }
    pub fn ge(self, other: impl IntoValue<'b, T>) -> Bool<'b> {
        self.binary(Op::GreaterEqual, other.value(self.builder))
    }
    pub fn eq(self, other: impl IntoValue<'b, T>) -> Bool<'b> {
        self.binary(Op::Equal, other.value(self.builder))
    }
    pub fn ne(self, other: impl IntoValue<'b, T>) -> Bool<'b> {
        self.binary(Op::NotEqual, other.value(self.builder))
    }
    /// Sum of products of the components; a plain product for scalars.
    pub fn dot(self, other: Self) -> Value<'b, T::Component> {
        match T::SIZE {
            Some(_) => self.math(Math::Dot, &[other]),
            None => self.binary(Op::Multiply, other),
        }
    }
}

macro_rules! float_functions {
    ($($method:ident $fun:ident;)*) => {
        impl<'b, T: Float> Value<'b, T> {
            $(pub fn $method(self) -> Self {
                self.math(Math::$fun, &[])
            })*

            /// `self * factor + addend`, in one rounding where the device has it.
            pub fn fma(self, factor: Self, addend: Self) -> Self {
                self.math(Math::Fma, &[factor, addend])
            }
        }
    };
}
float_functions! {
    sqrt Sqrt;
    inverse_sqrt InverseSqrt;
    exp Exp;
    exp2 Exp2;
    floor Floor;
}

impl<'b, T: Integer> Value<'b, T> {
    /// Number of bits set.
    pub fn count_ones(self) -> Self {
        self.math(Math::CountOneBits, &[])
    }
}

impl<'b> U32<'b> {
    /// The four bytes, lowest first.
    pub fn unpack4x_u8(self) -> Value<'b, [u32; 4]> {
        self.math(Math::Unpack4xU8, &[])
    }
    /// The four bytes as signed numbers, lowest first.
    pub fn unpack4x_i8(self) -> Value<'b, [i32; 4]> {
        self.math(Math::Unpack4xI8, &[])
    }
    /// Two f16 numbers, low half first.
    pub fn unpack2x16_float(self) -> Value<'b, [f32; 2]> {
        self.math(Math::Unpack2x16float, &[])
    }
}

impl<'b> Bool<'b> {
    /// `accept` where true, else `reject`. Both are evaluated.
    pub fn select<T: Kind>(self, accept: impl IntoValue<'b, T>, reject: impl IntoValue<'b, T>) -> Value<'b, T> {
        let (accept, reject) = (accept.value(self.builder), reject.value(self.builder));
        self.builder.expression(Expression::Select {
            condition: self.handle,
            accept: accept.handle,
            reject: reject.handle,
        })
    }
}

impl Builder {
    /// A literal, or the value itself.
    pub fn literal<'b, T: Kind>(&'b self, value: impl IntoValue<'b, T>) -> Value<'b, T> {
        value.value(self)
    }

    /// Zero, or the zero vector.
    pub fn zero<T: Kind>(&self) -> Value<'_, T> {
        let mut state = self.state.borrow_mut();
        let ty = state.intern::<T>();
        let handle = state.append(Expression::ZeroValue(ty));
        drop(state);
        self.value(handle)
    }

    /// All components `value`.
    pub fn splat<'b, T: Kind>(&'b self, value: impl IntoValue<'b, T::Component>) -> Value<'b, T> {
        let value = value.value(self);
        match T::SIZE {
            None => self.value(value.handle),
            Some(size) => self.expression(Expression::Splat {
                size,
                value: value.handle,
            }),
        }
    }

    /// A vector of its components: as many values as `T` has.
    pub fn vector<'b, T: Kind>(&'b self, components: &[Value<'b, T::Component>]) -> Value<'b, T> {
        self.compose(components.iter().map(|value| value.handle).collect())
    }

    /// A vector of two halves.
    pub fn join<'b, T: Kind>(&'b self, low: Value<'b, [T; 2]>, high: Value<'b, [T; 2]>) -> Value<'b, [T; 4]>
    where
        [T; 4]: Kind,
    {
        self.compose(vec![low.handle, high.handle])
    }

    fn compose<T: Kind>(&self, components: Vec<naga::Handle<Expression>>) -> Value<'_, T> {
        let ty = State::intern::<T>(&mut self.state.borrow_mut());
        self.expression(Expression::Compose { ty, components })
    }

    /// The sum of all components of several vectors.
    pub fn sum_of_components<'b>(&'b self, vectors: &[Vec4<'b>]) -> F32<'b> {
        let total = vectors
            .iter()
            .copied()
            .reduce(|a, b| a + b)
            .expect("at least one vector");
        total.dot(self.splat(1.0))
    }
}
