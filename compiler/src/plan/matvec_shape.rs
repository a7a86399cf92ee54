//! How decode divides a matrix-vector product among threads.

use crate::cost::Profile;
use crate::weights::WeightFormat;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatvecShape {
    /// Threads of a workgroup.
    pub workgroup: u32,
    /// Rows of the weight that a workgroup computes; even.
    pub rows: u32,
    /// Words of a row that a thread takes at a time.
    pub lane_words: u32,
}

/// As measured on an H100 with `cargo run --release -p kiln-codegen-tests --example time_kernels` (benches/RESULTS.md):
/// 4-bit weights like single words, so that neighbouring threads read neighbouring parts of the input; a thread
/// should have about two loads a row, in at most 128 threads; and more rows a workgroup pay only where
/// there are many workgroups left.
pub fn matvec_shape(profile: &Profile, rows: u32, cols: u32, format: WeightFormat) -> MatvecShape {
    let lane_words = match format {
        WeightFormat::Q4 { .. } | WeightFormat::Mxfp4 => 1,
        _ => 2,
    };
    let loads = cols.div_ceil(format.elements_per_vec4() / 4 * lane_words);
    let workgroup = loads.div_ceil(2).next_power_of_two().clamp(32, 128);
    let many = u64::from(rows) >= 8 * profile.resident_workgroups;
    MatvecShape {
        workgroup,
        rows: if many { 4 } else { 2 },
        lane_words,
    }
}
