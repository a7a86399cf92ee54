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

/// Half of a vec4: neighbouring threads read neighbouring parts of the input, and loads are still 8 bytes.
const LANE_WORDS: u32 = 2;

/// Few rows a workgroup where the device would otherwise idle, more where the input can be reused; as many
/// threads as a row has loads for.
pub fn matvec_shape(profile: &Profile, rows: u32, cols: u32, format: WeightFormat) -> MatvecShape {
    let loads = cols.div_ceil(format.elements_per_vec4() * LANE_WORDS / 4);
    let workgroup = loads.next_power_of_two().clamp(32, 128);
    let per_workgroup = if u64::from(rows) >= 8 * profile.resident_workgroups {
        4
    } else {
        2
    };
    MatvecShape {
        workgroup,
        rows: per_workgroup,
        lane_words: LANE_WORDS,
    }
}
