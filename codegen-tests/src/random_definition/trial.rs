//! One definition, compiled and run.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use kiln_compiler::architectures::Registry;
use kiln_compiler::compile::{CompileOptions, compile};
use kiln_compiler::graph::{ModelGraph, Node, Op, RouteSpec, Scoring};
use kiln_compiler::progress::Silent;
use kiln_compiler::reference::Evaluator;
use kiln_compiler::rewrite::{MoePlan, OptLevel};
use kiln_compiler::weights::Quant;
use serde_json::{Value, json};

use super::definition::Definition;
use super::generate::generate;
use super::trace::{NAME, architecture};
use crate::Random;
use crate::oracle::worst_relative_error;
use crate::pipeline::{VARIANTS, feed, load, session, tolerance};
use crate::random_model::{Grid, RandomModel};

/// Between the score of the last expert that is chosen and of the first that is not, so that rounding to f16 in a cache
/// before (5e-4 of a score of about 1) chooses no other expert.
const GAP: f32 = 0.01;
/// Weights are disturbed by this much of themselves ...
const DISTURBED: f64 = 1e-5;
/// ... and logits may then differ by this many times as much. The variants' tolerance is 10 times the rounding of a
/// cached f16 (5e-4), and that of f32 a thousand times f32's, so that only errors of the compiler pass it.
const AMPLIFIED: f64 = 8.0;
/// Weights that are tried for a definition.
const ATTEMPTS: u64 = 6;
/// Tokens that are fed one by one, after the prompt.
const DECODED: usize = 3;

const LEVELS: [OptLevel; 2] = [OptLevel::None, OptLevel::Full];

/// A definition, and what else decides what is compiled and fed.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Of the weights and the prompt.
    pub seed: u64,
    pub definition: Definition,
    pub grid: Grid,
    pub tokens: usize,
    pub chunk: u32,
    pub plan: Option<MoePlan>,
    /// Most bytes of a binding, where it is less than usual.
    pub binding_limit: Option<u64>,
    /// It is compiled at all of them ...
    pub levels: Vec<OptLevel>,
    /// ... and run in these variants of these levels.
    pub runs: Vec<(OptLevel, &'static str)>,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Trial {
            grid, tokens, chunk, ..
        } = self;
        write!(f, "// weights {grid:?}, {tokens} tokens in chunks of {chunk}")?;
        if let Some(plan) = self.plan {
            write!(f, ", experts by {}", plan.name())?;
        }
        if let Some(limit) = self.binding_limit {
            write!(f, ", bindings of {limit} bytes")?;
        }
        writeln!(f, ", levels {:?}, run {:?}", self.levels, self.runs)?;
        self.definition.fmt(f)
    }
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// The language refused the definition.
    Refused(String),
    /// The compiler returned an error.
    NotCompiled(OptLevel, String),
    /// Compiler or runtime panicked.
    Panicked(OptLevel, String),
    /// Logits differ from the evaluator's.
    Wrong {
        level: OptLevel,
        variant: &'static str,
        error: f64,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(error) => write!(f, "the definition is refused: {error}"),
            Failure::NotCompiled(level, error) => write!(f, "level {level:?} is not compiled: {error}"),
            Failure::Panicked(level, message) => write!(f, "level {level:?} panics: {message}"),
            Failure::Wrong { level, variant, error } => {
                write!(
                    f,
                    "level {level:?}, {variant}: logits differ by {error:.1e} of themselves"
                )
            }
        }
    }
}

impl Failure {
    /// Whether two failures are likely the same fault: numbers and names of kernels and layers do not count.
    pub fn like(&self, other: &Failure) -> bool {
        let words = |text: &str| {
            let word = |word: &&str| word.chars().all(|c| c.is_alphabetic() || ",;:.'".contains(c));
            text.split_whitespace()
                .filter(word)
                .map(str::to_string)
                .collect::<Vec<_>>()
        };
        match (self, other) {
            (Failure::Refused(one), Failure::Refused(other)) => words(one) == words(other),
            (Failure::NotCompiled(_, one), Failure::NotCompiled(_, other))
            | (Failure::Panicked(_, one), Failure::Panicked(_, other)) => words(one) == words(other),
            (Failure::Wrong { .. }, Failure::Wrong { .. }) => true,
            _ => false,
        }
    }

    /// Where it shows: the level, and the variant if one ran.
    pub fn place(&self) -> (Option<OptLevel>, Option<&'static str>) {
        match self {
            Failure::Refused(_) => (None, None),
            Failure::NotCompiled(level, _) | Failure::Panicked(level, _) => (Some(*level), None),
            Failure::Wrong { level, variant, .. } => (Some(*level), Some(variant)),
        }
    }
}

impl Trial {
    /// What a seed stands for, run in every variant of both levels.
    pub fn of_seed(seed: u64) -> Trial {
        let mut random = Random(seed ^ 0x5eed);
        let plans = [
            None,
            Some(MoePlan::Gather),
            Some(MoePlan::Grouped),
            Some(MoePlan::Dense),
        ];
        let mut trial = Trial {
            seed,
            definition: generate(seed),
            grid: *random.choice(&[Grid::F32, Grid::F32, Grid::Q8, Grid::Q4]),
            tokens: 5 + random.below(16),
            chunk: *random.choice(&[3, 8, 16]),
            plan: plans[(seed / 14) as usize % plans.len()],
            binding_limit: (random.below(6) == 0).then_some(4096),
            levels: LEVELS.to_vec(),
            runs: all_runs(),
        };
        // A definition whose logits hang on the last bit of its weights has no right answer to compare with.
        let mut attempt = 0;
        while matches!(trial.model(), Ok(None)) {
            attempt += 1;
            trial.definition = generate(seed + (attempt << 32));
        }
        trial
    }

    /// With one run instead of all: neighbouring seeds have different ones. A software device takes seconds to compile the
    /// kernels of each.
    pub fn with_one_run(mut self) -> Trial {
        let of_rewritten = VARIANTS.map(|variant| (OptLevel::Full, variant));
        let turn = self.seed as usize % (of_rewritten.len() + 1);
        self.runs = vec![*of_rewritten.get(turn).unwrap_or(&(OptLevel::None, "base"))];
        self
    }

    /// Compiles it at its levels, runs it, and compares the logits of every position with the evaluator's. A
    /// variant that the device cannot run is left out, loudly.
    ///
    /// # Errors
    /// The first thing that is not as it should be.
    pub fn run(&self) -> Result<(), Failure> {
        let Some((model, ids)) = self.model()? else {
            return Ok(());
        };
        let expected = Evaluator::new(&model.graph, &model.weights).feed(&ids).expect("logits");
        for &level in &self.levels {
            let outcome = catch_unwind(AssertUnwindSafe(|| self.run_level(level, &model, &ids, &expected)));
            outcome.unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
                Err(Failure::Panicked(level, text.to_string()))
            })?;
        }
        Ok(())
    }

    fn run_level(
        &self,
        level: OptLevel,
        model: &RandomModel,
        ids: &[u32],
        expected: &[Vec<f32>],
    ) -> Result<(), Failure> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut options = CompileOptions::new(model.folder.path(), folder.path().join("bundle"));
        options.quant = match self.grid {
            Grid::F32 => Quant::Keep,
            Grid::Q8 => Quant::Q8,
            Grid::Q4 => Quant::Q4,
        };
        options.level = level;
        options.moe_plan = self.plan;
        options.chunk = Some(self.chunk);
        options.binding_limit = self.binding_limit.unwrap_or(options.binding_limit);
        let registry = Registry::empty().with(architecture(self.definition.clone()));
        compile(&options, &registry, &Silent).map_err(|error| Failure::NotCompiled(level, error.to_string()))?;
        for &(_, variant) in self.runs.iter().filter(|(of, _)| *of == level) {
            let Some(model) = load(&options.output, variant) else {
                continue;
            };
            let mut session = session(&model);
            let (prompt, rest) = ids.split_at(ids.len().saturating_sub(DECODED));
            let mut logits = feed(&mut session, prompt);
            for id in rest {
                logits.extend(feed(&mut session, &[*id]));
            }
            let error = worst_relative_error(&logits, expected);
            if error.is_nan() || error > tolerance(variant) {
                return Err(Failure::Wrong { level, variant, error });
            }
        }
        Ok(())
    }

    fn config(&self) -> Value {
        json!({
            "architectures": [NAME],
            "vocab_size": self.definition.vocab,
            "hidden_size": self.definition.hidden,
            "num_hidden_layers": self.definition.layers.len(),
            "max_position_embeddings": 64,
        })
    }

    /// Weights and a prompt under which rounding errors stay small and choose no other experts; `None` if there are none
    /// among some.
    fn model(&self) -> Result<Option<(RandomModel, Vec<u32>)>, Failure> {
        let config = self.config();
        let refused = |error: &dyn fmt::Display| Failure::Refused(error.to_string());
        self.definition.check().map_err(|error| refused(&error))?;
        let graph = architecture(self.definition.clone())
            .build(&config)
            .map_err(|error| refused(&error))?;
        for attempt in 0..ATTEMPTS {
            let seed = self.seed.wrapping_add(attempt << 40);
            let model = RandomModel::of_graph(graph.clone(), &config, self.grid, seed, |_, _| ());
            let ids = Random(seed).ids(self.tokens, self.definition.vocab);
            if is_steady(&model, &ids) {
                return Ok(Some((model, ids)));
            }
        }
        Ok(None)
    }
}

fn all_runs() -> Vec<(OptLevel, &'static str)> {
    LEVELS
        .into_iter()
        .flat_map(|level| VARIANTS.map(|variant| (level, variant)))
        .collect()
}

/// Whether small changes of the weights change the logits little.
fn is_steady(model: &RandomModel, ids: &[u32]) -> bool {
    let mut gap = f32::INFINITY;
    let choices = choices(&model.graph);
    let logits = Evaluator::new(&model.graph, &model.weights).feed_traced(ids, &mut |traced| {
        for choice in choices.iter().filter(|choice| std::ptr::eq(choice.scores, traced.node)) {
            let rows = traced.values.chunks(choice.experts);
            gap = rows.map(|row| choice.gap(row, traced.layer, model)).fold(gap, f32::min);
        }
    });
    let logits = logits.expect("logits");
    let mut random = Random(1);
    let mut disturb = |value: &f32| value * (1.0 + DISTURBED as f32 * random.number());
    let disturbed: HashMap<String, Vec<f32>> = (model.weights.iter())
        .map(|(name, values)| (name.clone(), values.iter().map(&mut disturb).collect()))
        .collect();
    let others = Evaluator::new(&model.graph, &disturbed).feed(ids).expect("logits");
    let error = worst_relative_error(&others, &logits);
    let finite = logits.iter().flatten().all(|logit| logit.is_finite());
    finite && gap > GAP && error.is_finite() && error <= AMPLIFIED * DISTURBED
}

/// A choice of experts that a model makes.
struct Choice<'a> {
    scores: &'a Node,
    experts: usize,
    spec: RouteSpec,
    /// Name of the selection bias.
    bias: Option<&'a str>,
}

fn choices(graph: &ModelGraph) -> Vec<Choice<'_>> {
    let mut choices = Vec::new();
    for (_, section) in graph.sections() {
        for node in section.nodes.node_indices() {
            let Op::Route(spec) = section.nodes[node].op else {
                continue;
            };
            let operands = section.operands(node);
            let scores = &section.nodes[operands[0]];
            let bias = operands.get(1).map(|bias| &section.nodes[*bias].op);
            choices.push(Choice {
                scores,
                experts: scores.shape.dims[0].value(),
                spec,
                bias: bias.and_then(|bias| match bias {
                    Op::Weight(id) => Some(graph.weights[id.0].name.as_str()),
                    _ => None,
                }),
            });
        }
    }
    choices
}

impl Choice<'_> {
    /// How much better the last chosen expert is than the next, in scores.
    fn gap(&self, scores: &[f32], layer: Option<usize>, model: &RandomModel) -> f32 {
        let bias = self.bias.map(|name| {
            let index = layer.map(|layer| model.graph.layers[layer].index);
            &model.weights[&name.replacen("{}", &index.unwrap_or(0).to_string(), 1)]
        });
        let by = |(expert, score): (usize, &f32)| {
            let bias = bias.map_or(0.0, |bias| bias[expert]);
            match self.spec.scoring {
                // At most a quarter as steep as the score itself.
                Scoring::Sigmoid => 4.0 * (1.0 / (1.0 + (-score).exp()) + bias),
                _ => score + bias,
            }
        };
        let mut chosen_by: Vec<f32> = scores.iter().enumerate().map(by).collect();
        chosen_by.sort_by(|a, b| b.total_cmp(a));
        let last = self.spec.experts_per_token as usize - 1;
        match chosen_by.get(last + 1) {
            Some(next) => chosen_by[last] - next,
            None => f32::INFINITY,
        }
    }
}
