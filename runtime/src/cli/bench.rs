use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::args::BenchArgs;
use super::{open, process};
use crate::{CancelToken, GenerateOptions, KernelTime, Model, Session};

/// A GPU needs about this long to reach its full clock.
const WARM_UP: Duration = Duration::from_millis(1500);

/// All that is measured; the JSON output. Times are medians over the repetitions.
#[derive(Serialize)]
struct Report {
    model: String,
    quantization: String,
    device: String,
    variant: String,
    prefill_tokens: u32,
    decode_tokens: u32,
    context_tokens: u32,
    repetitions: u32,
    load_s: f64,
    pipelines_s: f64,
    weights_s: f64,
    weight_bytes: u64,
    prefill_tokens_per_s: Spread,
    time_to_first_token_s: Spread,
    decode_tokens_per_s: Spread,
    /// Recording and submitting a decode step.
    cpu_encode_us_per_token: Spread,
    /// All threads of the process while decoding, the driver's too.
    cpu_process_us_per_token: Option<Spread>,
    peak_host_bytes: Option<u64>,
    device_bytes: u64,
    decode_dispatches: usize,
    prefill_dispatches: usize,
    kernels: usize,
    decode_kernel_times: Option<Vec<Row>>,
    prefill_kernel_times: Option<Vec<Row>>,
}

#[derive(Clone, Copy, Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

/// GPU time of one kernel in one step.
#[derive(Serialize)]
struct Row {
    kernel: String,
    dispatches: u32,
    total_us: f64,
    share: f64,
}

pub(super) async fn run(args: BenchArgs, cancel: &CancelToken) -> anyhow::Result<ExitCode> {
    let bundle = open::bundle(&args.model.bundle).await?;
    let model = open::model(&bundle, &args.model, open::Purpose::Measure, cancel).await?;
    // Room for both measurements, and for a chunk of steps that run ahead.
    let context = args
        .prefill
        .max(args.context.saturating_add(args.decode))
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
        show(&mut out, &report)?;
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
        let bar = open::bar(u64::from(self.args.repetitions) * 3, "{msg} {bar:30} {pos}/{len}");
        bar.set_message("warming up");
        self.warm_up().await?;
        bar.set_message("measuring");
        let repetitions = self.args.repetitions;
        let (mut prefill, mut first, mut decoded) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..repetitions {
            prefill.push(f64::from(self.args.prefill) / self.prefill().await?.as_secs_f64());
            bar.inc(1);
        }
        for _ in 0..repetitions {
            first.push(self.first_token().await?.as_secs_f64());
            bar.inc(1);
        }
        for _ in 0..repetitions {
            decoded.push(self.decode().await?);
            bar.inc(1);
        }
        bar.finish_and_clear();
        let (decode_kernel_times, prefill_kernel_times) = self.profile().await?;
        let facts = &self.model.manifest().model;
        let load = self.model.load_report();
        let programs = &self.model.variant().programs;
        let tail = programs.head.len() + programs.sample.len();
        let process_us: Option<Vec<f64>> = decoded.iter().map(|run| run.process_us).collect();
        Ok(Report {
            model: facts.name.clone(),
            quantization: facts.quantization.clone(),
            device: self.model.device().name().to_string(),
            variant: self.model.variant().name.clone(),
            prefill_tokens: self.args.prefill,
            decode_tokens: self.args.decode,
            context_tokens: self.args.context,
            repetitions,
            load_s: load.total.as_secs_f64(),
            pipelines_s: load.pipelines.as_secs_f64(),
            weights_s: load.weights.as_secs_f64(),
            weight_bytes: load.weight_bytes,
            prefill_tokens_per_s: Spread::of(prefill),
            time_to_first_token_s: Spread::of(first),
            decode_tokens_per_s: Spread::of(decoded.iter().map(|run| run.tokens_per_s).collect()),
            cpu_encode_us_per_token: Spread::of(decoded.iter().map(|run| run.encode_us).collect()),
            cpu_process_us_per_token: process_us.map(Spread::of),
            peak_host_bytes: process::peak_memory(),
            device_bytes: self.model.device().allocated_bytes(),
            decode_dispatches: programs.decode.len() + tail,
            prefill_dispatches: programs.prefill.len(),
            kernels: self.model.variant().kernels.len(),
            decode_kernel_times,
            prefill_kernel_times,
        })
    }

    /// Both measurements, until the clock has had its time.
    async fn warm_up(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            self.prefill().await?;
            self.decode().await?;
            if started.elapsed() > WARM_UP {
                return Ok(());
            }
        }
    }

    /// Time of the prompt through all layers.
    async fn prefill(&mut self) -> anyhow::Result<Duration> {
        let ids = self.random_ids(self.args.prefill);
        self.session.reset()?;
        self.session.synchronize().await?;
        let started = Instant::now();
        self.session.feed(&ids).await?;
        self.session.synchronize().await?;
        Ok(started.elapsed())
    }

    /// Time from the prompt to the first token in hand.
    async fn first_token(&mut self) -> anyhow::Result<Duration> {
        let ids = self.random_ids(self.args.prefill);
        self.session.reset()?;
        self.session.synchronize().await?;
        let started = Instant::now();
        self.session.feed(&ids).await?;
        let mut generation = self.session.generate(self.options(1))?;
        generation.next().await?;
        Ok(started.elapsed())
    }

    /// Decode steps after a context of `--context` tokens; the step after the context is not counted.
    async fn decode(&mut self) -> anyhow::Result<Decoded> {
        let ids = self.random_ids(self.args.context);
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

    async fn profile(&mut self) -> anyhow::Result<(Option<Vec<Row>>, Option<Vec<Row>>)> {
        if !self.model.device().has_timestamps() {
            return Ok((None, None));
        }
        let context = self.random_ids(self.args.context);
        self.session.feed_only_new(&context).await?;
        let decode = self.profile_twice(&[0]).await?;
        self.session.reset()?;
        let chunk = self.model.manifest().model.chunk.min(self.args.prefill);
        let ids = self.random_ids(chunk);
        let prefill = self.profile_twice(&ids).await?;
        Ok((Some(decode), Some(prefill)))
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

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Self {
            median: at(values.len() / 2),
            min: at(0),
            max: at(values.len().saturating_sub(1)),
        }
    }
}

fn rows(times: &[KernelTime]) -> Vec<Row> {
    let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
    let total: f64 = times.iter().map(|time| microseconds(time.total)).sum();
    let rows = times.iter().map(|time| Row {
        kernel: time.kernel.clone(),
        dispatches: time.dispatches,
        total_us: microseconds(time.total),
        share: if total > 0.0 {
            microseconds(time.total) / total
        } else {
            0.0
        },
    });
    rows.collect()
}

fn show(out: &mut impl Write, report: &Report) -> std::io::Result<()> {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    writeln!(
        out,
        "{} ({}), variant {} on {}",
        report.model, report.quantization, report.variant, report.device
    )?;
    writeln!(
        out,
        "load {:.3} s: weights {:.3} s for {:.1} MB, beside it {} pipelines in {:.3} s",
        report.load_s,
        report.weights_s,
        megabytes(report.weight_bytes),
        report.kernels,
        report.pipelines_s
    )?;
    let line = |out: &mut dyn Write, name: &str, unit: &str, value: &Spread| {
        writeln!(
            out,
            "{name:<28} {:>10.2} {unit} ({:.2} to {:.2})",
            value.median, value.min, value.max
        )
    };
    let prefill = format!("prefill {}", report.prefill_tokens);
    line(out, &prefill, "tokens/s", &report.prefill_tokens_per_s)?;
    let first = report.time_to_first_token_s;
    let milliseconds = Spread {
        median: first.median * 1e3,
        min: first.min * 1e3,
        max: first.max * 1e3,
    };
    line(out, "time to first token", "ms", &milliseconds)?;
    let decode = format!("decode {} after {}", report.decode_tokens, report.context_tokens);
    line(out, &decode, "tokens/s", &report.decode_tokens_per_s)?;
    line(out, "CPU encoding a token", "µs", &report.cpu_encode_us_per_token)?;
    if let Some(process) = &report.cpu_process_us_per_token {
        line(out, "CPU of the process a token", "µs", process)?;
    }
    writeln!(
        out,
        "dispatches: {} a token, {} a prefill chunk",
        report.decode_dispatches, report.prefill_dispatches
    )?;
    if let Some(bytes) = report.peak_host_bytes {
        writeln!(out, "host memory, peak: {:.1} MB", megabytes(bytes))?;
    }
    writeln!(out, "device memory: {:.1} MB", megabytes(report.device_bytes))?;
    table(out, "decode step", report.decode_kernel_times.as_deref())?;
    table(out, "prefill chunk", report.prefill_kernel_times.as_deref())
}

fn table(out: &mut dyn Write, name: &str, rows: Option<&[Row]>) -> std::io::Result<()> {
    let Some(rows) = rows else {
        return writeln!(out, "{name}: this device takes no timestamps");
    };
    let total: f64 = rows.iter().map(|row| row.total_us).sum();
    writeln!(out, "{name}: {total:.1} µs in kernels, each timed alone")?;
    for row in rows {
        writeln!(
            out,
            "  {:>10.1} µs {:>5.1} % {:>5} × {}",
            row.total_us,
            row.share * 100.0,
            row.dispatches,
            row.kernel
        )?;
    }
    Ok(())
}
