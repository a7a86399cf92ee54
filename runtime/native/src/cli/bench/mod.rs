//! Measures speed and memory.

mod report;

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::args::BenchArgs;
use super::{open, process};
use crate::{CancelToken, GenerateOptions, Model, Session};
use report::{Decode, Memory, Prefill, Report, Row, Spread, rows};

/// A GPU needs about this long to reach its full clock.
const WARM_UP: Duration = Duration::from_millis(1500);

pub(super) async fn run(args: BenchArgs, cancel: &CancelToken) -> anyhow::Result<ExitCode> {
    let bundle = open::bundle(&args.model.bundle).await?;
    let model = open::model(&bundle, &args.model, open::Purpose::Measure, cancel).await?;
    // Room for the longest measurement.
    let longest = args.context.iter().max().copied().unwrap_or(0);
    let prompts = args.prefill.iter().copied();
    let context = prompts
        .fold(longest.saturating_add(args.decode), u32::max)
        .saturating_add(1);
    let mut session = Session::new(model.clone(), Some(context)).await?;
    session.set_cancel_token(cancel.clone());
    let report = Bench {
        args: &args,
        model: &model,
        session: &mut session,
    };
    let report = report.run().await?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        report.show(&mut out)?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Bench<'a> {
    args: &'a BenchArgs,
    model: &'a Model,
    session: &'a mut Session,
}

/// One decode run.
struct Decoded {
    tokens_per_s: f64,
    encode_us: f64,
    process_us: Option<f64>,
}

impl Bench<'_> {
    async fn run(mut self) -> anyhow::Result<Report> {
        let args = self.args;
        let (prompts, contexts) = (args.prefill.len() as u64, args.context.len() as u64);
        let total = u64::from(args.repetitions) * (2 * prompts + contexts);
        let bar = open::bar(total, "{msg} {bar:30} {pos}/{len}");
        bar.set_message("warming up");
        self.warm_up().await?;
        bar.set_message("measuring");
        let (mut prefill, mut decode) = (Vec::new(), Vec::new());
        for &tokens in &args.prefill {
            prefill.push(self.measure_prefill(tokens, &bar).await?);
        }
        for &context in &args.context {
            decode.push(self.measure_decode(context, &bar).await?);
        }
        bar.finish_and_clear();
        let prefill_kernel_times = self.profile_prefill().await?;
        let facts = &self.model.manifest().model;
        let load = self.model.load_report();
        let programs = &self.model.variant().programs;
        let tail = programs.head.len() + programs.greedy.len();
        let device = self.model.device();
        let planned = self.model.memory_plan(self.session.context());
        Ok(Report {
            model: facts.name.clone(),
            quantization: facts.quantization.clone(),
            device: device.name().to_string(),
            variant: self.model.variant().name.clone(),
            kernel_checks: self.model.kernel_checks().to_string(),
            repetitions: args.repetitions,
            load_s: load.total.as_secs_f64(),
            pipelines_s: load.pipelines.as_secs_f64(),
            weights_s: load.weights.as_secs_f64(),
            weight_bytes: load.weight_bytes,
            prefill,
            decode,
            prefill_kernel_times,
            peak_host_bytes: process::peak_memory(),
            memory: Memory {
                context: self.session.context(),
                planned,
                planned_total: planned.total(),
                allocated: device.most_allocated_bytes(),
                reserved: device.reserved_bytes(),
            },
            decode_dispatches: programs.decode.len() + tail,
            prefill_dispatches: programs.prefill.len(),
            kernels: self.model.variant().kernels.len(),
        })
    }

    async fn measure_prefill(&mut self, tokens: u32, bar: &ProgressBar) -> anyhow::Result<Prefill> {
        let (mut speed, mut first) = (Vec::new(), Vec::new());
        for _ in 0..self.args.repetitions {
            speed.push(f64::from(tokens) / self.prefill(tokens).await?.as_secs_f64());
            bar.inc(1);
        }
        for _ in 0..self.args.repetitions {
            first.push(self.first_token(tokens).await?.as_secs_f64());
            bar.inc(1);
        }
        Ok(Prefill {
            tokens,
            tokens_per_s: Spread::of(speed),
            time_to_first_token_s: Spread::of(first),
        })
    }

    async fn measure_decode(&mut self, context: u32, bar: &ProgressBar) -> anyhow::Result<Decode> {
        let mut runs = Vec::new();
        for _ in 0..self.args.repetitions {
            runs.push(self.decode(context).await?);
            bar.inc(1);
        }
        let process_us: Option<Vec<f64>> = runs.iter().map(|run| run.process_us).collect();
        Ok(Decode {
            context,
            tokens: self.args.decode,
            tokens_per_s: Spread::of(runs.iter().map(|run| run.tokens_per_s).collect()),
            cpu_encode_us_per_token: Spread::of(runs.iter().map(|run| run.encode_us).collect()),
            cpu_process_us_per_token: process_us.map(Spread::of),
            kernel_times: self.profile_decode(context).await?,
        })
    }

    /// Both measurements, until the clock has had its time.
    async fn warm_up(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let (tokens, context) = (self.args.prefill[0], self.args.context[0]);
        loop {
            self.prefill(tokens).await?;
            self.decode(context).await?;
            if started.elapsed() > WARM_UP {
                return Ok(());
            }
        }
    }

    /// Time of the prompt through all layers.
    async fn prefill(&mut self, tokens: u32) -> anyhow::Result<Duration> {
        let ids = self.random_ids(tokens);
        self.session.reset()?;
        self.session.synchronize().await?;
        let started = Instant::now();
        self.session.feed(&ids).await?;
        self.session.synchronize().await?;
        Ok(started.elapsed())
    }

    /// Time from the prompt to the first token in hand.
    async fn first_token(&mut self, tokens: u32) -> anyhow::Result<Duration> {
        let ids = self.random_ids(tokens);
        self.session.reset()?;
        self.session.synchronize().await?;
        let started = Instant::now();
        self.session.feed(&ids).await?;
        let mut generation = self.session.generate(self.options(1))?;
        generation.next().await?;
        Ok(started.elapsed())
    }

    /// Decode steps after so many tokens; the step after the context is not counted.
    async fn decode(&mut self, context: u32) -> anyhow::Result<Decoded> {
        let ids = self.random_ids(context);
        self.session.feed_only_new(&ids).await?;
        self.session.synchronize().await?;
        let cpu = process::cpu_time();
        let tokens = self.args.decode + 1;
        let mut generation = self.session.generate(self.options(tokens))?;
        while generation.next().await?.is_some() {}
        let report = generation.report();
        let process = cpu
            .zip(process::cpu_time())
            .map(|(before, after)| after.saturating_sub(before));
        let per_token = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(tokens);
        let steady = (report.total - report.first_token).as_secs_f64();
        if report.tokens < tokens {
            return Err(crate::Error::Canceled.into());
        }
        Ok(Decoded {
            tokens_per_s: f64::from(self.args.decode) / steady,
            encode_us: per_token(report.encoding),
            process_us: process.map(per_token),
        })
    }

    async fn profile_decode(&mut self, context: u32) -> anyhow::Result<Option<Vec<Row>>> {
        if !self.model.device().has_timestamps() {
            return Ok(None);
        }
        let ids = self.random_ids(context);
        self.session.feed_only_new(&ids).await?;
        self.profile_twice(&[0]).await.map(Some)
    }

    /// A chunk at the start.
    async fn profile_prefill(&mut self) -> anyhow::Result<Option<Vec<Row>>> {
        if !self.model.device().has_timestamps() {
            return Ok(None);
        }
        self.session.reset()?;
        let longest = self.args.prefill.iter().max().copied().unwrap_or(0);
        let ids = self.random_ids(self.model.manifest().model.chunk.min(longest));
        self.profile_twice(&ids).await.map(Some)
    }

    /// The second run finds everything in place.
    async fn profile_twice(&mut self, ids: &[u32]) -> anyhow::Result<Vec<Row>> {
        self.session.profile(ids).await?;
        Ok(rows(&self.session.profile(ids).await?))
    }

    fn options(&self, max_tokens: u32) -> GenerateOptions {
        GenerateOptions {
            max_tokens,
            stop_ids: Some(Vec::new()),
            steps_in_flight: self.args.steps_in_flight,
            ..GenerateOptions::default()
        }
    }

    /// The same ids in every run (xorshift32).
    fn random_ids(&self, count: u32) -> Vec<u32> {
        let vocab = self.model.manifest().model.vocab_size;
        let mut state = 0x9e37_79b9u32;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state % vocab
        };
        (0..count).map(|_| next()).collect()
    }
}
