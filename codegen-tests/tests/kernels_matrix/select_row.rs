//! A row of the hidden states.

use kiln_compiler::kernels::{KernelSpec, SelectRowSpec};

use super::support::{Random, check, step};

#[test]
fn the_wanted_row_of_several() {
    for width in [1, 77, 300] {
        let rows = 5;
        let x = Random(7).numbers((rows * width) as usize);
        for row in [0, 3] {
            let from = (row * width) as usize;
            let expected: Vec<f64> = x[from..from + width as usize]
                .iter()
                .map(|value| f64::from(*value))
                .collect();
            let buffers = [(&x).into(), step(rows, row), (&vec![0f32; width as usize]).into()];
            check(
                &KernelSpec::SelectRow(SelectRowSpec { width }),
                &buffers,
                1,
                &expected,
                0.0,
            );
        }
    }
}
