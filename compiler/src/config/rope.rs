use std::f64::consts::PI;

use serde_json::{Map, Value};

use super::normalize::is_by_layer_type;
use super::{ConfigError, Field, FromConfig};
use crate::graph::RopeSpec;

/// `rope_parameters` of a config: how positions turn queries and keys, perhaps differently for each type
/// of layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Type of layer (`None`: every) and its parameters.
    entries: Vec<(Option<String>, Parameters)>,
}

#[derive(Clone, Debug, PartialEq)]
struct Parameters {
    theta: f64,
    /// Share of a head that is rotated.
    partial: f64,
    scaling: Scaling,
}

/// Formulas: transformers 5, `modeling_rope_utils.py`.
#[derive(Clone, Debug, PartialEq)]
enum Scaling {
    Default,
    /// All frequencies divided by a factor.
    Linear {
        factor: f64,
    },
    /// Long wavelengths divided by a factor, short ones kept, a ramp between (Llama 3.1).
    Llama3(Llama3),
    /// As Llama 3.1's, with the ramp over the number of the frequency (Peng et al. 2023).
    Yarn(Yarn),
}

#[derive(Clone, Debug, PartialEq)]
struct Llama3 {
    factor: f64,
    low_freq_factor: f64,
    high_freq_factor: f64,
    original: f64,
}

#[derive(Clone, Debug, PartialEq)]
struct Yarn {
    factor: f64,
    /// Turns over `original` positions: at more than `beta_fast`, frequencies stay; at less than `beta_slow`, they are
    /// divided by the factor.
    beta_fast: f64,
    beta_slow: f64,
    original: f64,
    /// Whether the ramp starts and ends at whole numbers.
    truncate: bool,
    attention_factor: f64,
}

/// No model has wider heads; a config that says so is damaged.
const WIDEST_HEAD: usize = 1 << 16;

const SUPPORTED: &str = "supported are default, linear, llama3, yarn";

impl FromConfig for Rope {
    const EXPECTED: &'static str = "an object";

    fn from_config(field: Field<'_>) -> Result<Self, ConfigError> {
        let Value::Object(object) = field.value else {
            return Err(ConfigError::ill_typed(field.key, Self::EXPECTED, field.value));
        };
        if !is_by_layer_type(object) {
            let parameters = Parameters::read(field.key, object)?;
            return Ok(Rope {
                entries: vec![(None, parameters)],
            });
        }
        let mut entries = Vec::new();
        for (kind, value) in object {
            let path = format!("{}.{kind}", field.key);
            if let Value::Object(entry) = value {
                entries.push((Some(kind.clone()), Parameters::read(&path, entry)?));
            }
        }
        Ok(Rope { entries })
    }
}

impl Parameters {
    fn read(path: &str, object: &Map<String, Value>) -> Result<Self, ConfigError> {
        let at = |key: &str| format!("{path}.{key}");
        let number = |key: &str| -> Result<f64, ConfigError> {
            let value = object.get(key).ok_or_else(|| ConfigError::Missing {
                field: at(key),
                expected: f64::EXPECTED.to_string(),
            })?;
            let positive = value.as_f64().filter(|n| *n > 0.0 && n.is_finite());
            positive.ok_or_else(|| ConfigError::ill_typed(&at(key), "a positive number", value))
        };
        // Queries that grow with their position, whatever else the frequencies are.
        if let Some(value) = object.get("llama_4_scaling_beta") {
            let path = at("llama_4_scaling_beta");
            return Err(ConfigError::unsupported(
                &path,
                value,
                "queries scaled by position are not supported",
            ));
        }
        let kind = object.get("rope_type").cloned().unwrap_or(Value::Null);
        let scaling = match kind.as_str() {
            Some("default") => Scaling::Default,
            Some("linear") => Scaling::Linear {
                factor: number("factor")?,
            },
            Some("llama3") => Scaling::Llama3(Llama3 {
                factor: number("factor")?,
                low_freq_factor: number("low_freq_factor")?,
                high_freq_factor: number("high_freq_factor")?,
                original: number("original_max_position_embeddings")?,
            }),
            Some("yarn") => {
                let optional = |key: &str| object.contains_key(key).then(|| number(key)).transpose();
                let factor = number("factor")?;
                let length = |scale: f64| {
                    if factor > 1.0 {
                        0.1 * scale * factor.ln() + 1.0
                    } else {
                        1.0
                    }
                };
                let inferred = match (optional("mscale")?, optional("mscale_all_dim")?) {
                    (Some(scale), Some(all)) => length(scale) / length(all),
                    _ => length(1.0),
                };
                let truncate = match object.get("truncate") {
                    None => true,
                    Some(Value::Bool(truncate)) => *truncate,
                    Some(other) => return Err(ConfigError::ill_typed(&at("truncate"), bool::EXPECTED, other)),
                };
                Scaling::Yarn(Yarn {
                    factor,
                    beta_fast: optional("beta_fast")?.unwrap_or(32.0),
                    beta_slow: optional("beta_slow")?.unwrap_or(1.0),
                    original: number("original_max_position_embeddings")?,
                    truncate,
                    attention_factor: optional("attention_factor")?.unwrap_or(inferred),
                })
            }
            _ => return Err(ConfigError::unsupported(&at("rope_type"), &kind, SUPPORTED)),
        };
        let partial = match object.get("partial_rotary_factor") {
            Some(_) => number("partial_rotary_factor")?,
            None => 1.0,
        };
        Ok(Parameters {
            theta: number("rope_theta")?,
            partial,
            scaling,
        })
    }

    /// How many elements of a head are rotated: pairs of them.
    fn rotary(&self, head_dim: usize) -> usize {
        let share = (head_dim as f64 * self.partial) as usize;
        share.saturating_add(share % 2)
    }

    /// Rounded to f32 where transformers rounds.
    fn inverse_frequencies(&self, head_dim: usize) -> Vec<f32> {
        let rotary = (head_dim as f64 * self.partial) as usize;
        let plain = (0..rotary).step_by(2).map(|i| {
            let exponent = i as f32 / rotary as f32;
            1.0 / self.theta.powf(f64::from(exponent)) as f32
        });
        match &self.scaling {
            Scaling::Default => plain.collect(),
            Scaling::Linear { factor } => plain.map(|frequency| frequency / *factor as f32).collect(),
            Scaling::Llama3(llama3) => plain.map(|frequency| llama3.apply(frequency)).collect(),
            Scaling::Yarn(yarn) => {
                let ramp = yarn.ramp(self.theta, rotary);
                (plain.zip(ramp))
                    .map(|(frequency, share)| yarn.apply(frequency, share))
                    .collect()
            }
        }
    }

    fn attention_factor(&self) -> f32 {
        match &self.scaling {
            Scaling::Yarn(yarn) => yarn.attention_factor as f32,
            _ => 1.0,
        }
    }
}

impl Yarn {
    /// For each of a head's frequencies the share of it that is divided by the factor.
    fn ramp(&self, theta: f64, rotary: usize) -> Vec<f32> {
        let width = rotary as f64;
        // The number of the frequency that turns so many times over the original context.
        let number = |turns: f64| width * (self.original / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
        let (mut low, mut high) = (number(self.beta_fast), number(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(width - 1.0));
        if low == high {
            high += 0.001;
        }
        let share = |i: usize| (i as f32 - low as f32) / (high - low) as f32;
        (0..rotary / 2).map(|i| share(i).clamp(0.0, 1.0)).collect()
    }

    fn apply(&self, frequency: f32, share: f32) -> f32 {
        let divided = 1.0 / (self.factor as f32 * (1.0 / frequency));
        divided * share + frequency * (1.0 - share)
    }
}

impl Llama3 {
    fn apply(&self, frequency: f32) -> f32 {
        let Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original,
        } = *self;
        let wavelength = (2.0 * PI) as f32 / frequency;
        if wavelength > (original / low_freq_factor) as f32 {
            return frequency / factor as f32;
        }
        if wavelength < (original / high_freq_factor) as f32 {
            return frequency;
        }
        let smooth =
            (original as f32 / wavelength - low_freq_factor as f32) / (high_freq_factor - low_freq_factor) as f32;
        (1.0 - smooth) * frequency / factor as f32 + smooth * frequency
    }
}

impl Rope {
    /// The rotation for a kind of layer and a width of head, or why there is none.
    pub fn spec(&self, kind: Option<&str>, head_dim: usize) -> Result<RopeSpec, String> {
        let fits = |of: &Option<String>| of.is_none() || of.as_deref() == kind;
        let Some((of, parameters)) = self.entries.iter().find(|(of, _)| fits(of)) else {
            let known: Vec<&str> = self.entries.iter().filter_map(|(of, _)| of.as_deref()).collect();
            return Err(format!(
                "`rope_parameters` has no entry for {} layers, only for {}",
                kind.unwrap_or("these"),
                known.join(", "),
            ));
        };
        if head_dim > WIDEST_HEAD {
            return Err(format!(
                "heads of {head_dim} elements are too wide, at most {WIDEST_HEAD} are possible"
            ));
        }
        let rotary = parameters.rotary(head_dim);
        if rotary == 0 || rotary > head_dim {
            return Err(format!(
                "rotating {rotary} of a head's {head_dim} elements is not possible"
            ));
        }
        let inv_freq = parameters.inverse_frequencies(head_dim);
        Ok(RopeSpec {
            name: match of {
                Some(kind) => format!("rope_{kind}"),
                None => "rope".to_string(),
            },
            inv_freq,
            attention_factor: parameters.attention_factor(),
        })
    }
}
