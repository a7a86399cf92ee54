use serde::Deserialize;
use thiserror::Error;

/// A named device that costs are computed for. Checked in under `profiles/`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Profile {
    pub name: String,
    pub about: String,
    /// Time of a dispatch that waits for the one before and does nothing, in nanoseconds.
    pub launch_ns: u64,
    /// Memory bandwidth, 10⁹ bytes a second.
    pub bandwidth_gb_s: u64,
    /// Peak f32 rate, 10⁹ operations a second.
    pub f32_gflop_s: u64,
    /// Bandwidth that one workgroup reaches alone, 10⁹ bytes a second.
    pub workgroup_gb_s: u64,
    /// Workgroups of 128 threads that run at once; fewer leave the device idle.
    pub resident_workgroups: u64,
}

/// No profile of this name.
#[derive(Debug, Error)]
#[error("no device profile is called {name}; there are: {known}")]
pub struct UnknownProfile {
    pub name: String,
    pub known: String,
}

const PROFILES: [&str; 2] = [
    include_str!("../../profiles/generic.json"),
    include_str!("../../profiles/h100.json"),
];

impl Profile {
    /// The profile used when none is named.
    pub const DEFAULT: &str = "generic";

    /// All profiles that are checked in.
    pub fn all() -> Vec<Profile> {
        PROFILES
            .iter()
            .map(|text| serde_json::from_str(text).expect("profiles are checked in and tested"))
            .collect()
    }

    /// # Errors
    /// No profile has this name; the error lists those there are.
    pub fn named(name: &str) -> Result<Profile, UnknownProfile> {
        let all = Profile::all();
        let known: Vec<&str> = all.iter().map(|profile| profile.name.as_str()).collect();
        let known = known.join(", ");
        all.into_iter()
            .find(|profile| profile.name == name)
            .ok_or_else(|| UnknownProfile {
                name: name.to_string(),
                known,
            })
    }
}
