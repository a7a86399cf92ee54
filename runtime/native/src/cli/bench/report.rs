//! What `run-model bench` prints.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use crate::{KernelTime, MemoryPlan};

/// All that is measured; the JSON output. Times are medians over the repetitions.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) model: String,
    pub(super) quantization: String,
    pub(super) device: String,
    pub(super) variant: String,
    /// Whether the kernels ran with bounds checks, and why.
    pub(super) kernel_checks: String,
    pub(super) repetitions: u32,
    pub(super) load_s: f64,
    pub(super) pipelines_s: f64,
    pub(super) weights_s: f64,
    pub(super) weight_bytes: u64,
    pub(super) prefill: Vec<Prefill>,
    pub(super) decode: Vec<Decode>,
    pub(super) prefill_kernel_times: Option<Vec<Row>>,
    pub(super) peak_host_bytes: Option<u64>,
    pub(super) memory: Memory,
    pub(super) decode_dispatches: usize,
    pub(super) prefill_dispatches: usize,
    pub(super) kernels: usize,
}

/// A prompt of so many tokens.
#[derive(Serialize)]
pub(super) struct Prefill {
    pub(super) tokens: u32,
    pub(super) tokens_per_s: Spread,
    pub(super) time_to_first_token_s: Spread,
}

/// `tokens` tokens after `context` others.
#[derive(Serialize)]
pub(super) struct Decode {
    pub(super) context: u32,
    pub(super) tokens: u32,
    pub(super) tokens_per_s: Spread,
    /// Recording and submitting a decode step.
    pub(super) cpu_encode_us_per_token: Spread,
    /// All threads of the process while decoding, the driver's too.
    pub(super) cpu_process_us_per_token: Option<Spread>,
    pub(super) kernel_times: Option<Vec<Row>>,
}

/// Bytes on the device.
#[derive(Serialize)]
pub(super) struct Memory {
    /// Positions of the session.
    pub(super) context: u32,
    pub(super) planned: MemoryPlan,
    pub(super) planned_total: u64,
    /// Most that all buffers together took.
    pub(super) allocated: u64,
    /// What wgpu holds of the device's memory, where it can tell.
    pub(super) reserved: Option<u64>,
}

#[derive(Clone, Copy, Serialize)]
pub(super) struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

/// GPU time of one kernel in one step.
#[derive(Serialize)]
pub(super) struct Row {
    kernel: String,
    dispatches: u32,
    total_us: f64,
    share: f64,
}

impl Spread {
    pub(super) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Self {
            median: at(values.len() / 2),
            min: at(0),
            max: at(values.len().saturating_sub(1)),
        }
    }

    fn times(self, factor: f64) -> Self {
        Self {
            median: self.median * factor,
            min: self.min * factor,
            max: self.max * factor,
        }
    }
}

pub(super) fn rows(times: &[KernelTime]) -> Vec<Row> {
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

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

impl Report {
    pub(super) fn show(&self, out: &mut impl Write) -> std::io::Result<()> {
        writeln!(
            out,
            "{} ({}), variant {} on {}; kernels {}",
            self.model, self.quantization, self.variant, self.device, self.kernel_checks
        )?;
        writeln!(
            out,
            "load {:.3} s: weights {:.3} s for {:.1} MB, beside it {} pipelines in {:.3} s",
            self.load_s,
            self.weights_s,
            megabytes(self.weight_bytes),
            self.kernels,
            self.pipelines_s
        )?;
        for prefill in &self.prefill {
            line(
                out,
                &format!("prefill {}", prefill.tokens),
                "tokens/s",
                prefill.tokens_per_s,
            )?;
            let milliseconds = prefill.time_to_first_token_s.times(1e3);
            line(out, "  time to first token", "ms", milliseconds)?;
        }
        for decode in &self.decode {
            let name = format!("decode {} after {}", decode.tokens, decode.context);
            line(out, &name, "tokens/s", decode.tokens_per_s)?;
            line(out, "  CPU encoding a token", "µs", decode.cpu_encode_us_per_token)?;
            if let Some(process) = decode.cpu_process_us_per_token {
                line(out, "  CPU of the process a token", "µs", process)?;
            }
        }
        writeln!(
            out,
            "dispatches: {} a token, {} a prefill chunk",
            self.decode_dispatches, self.prefill_dispatches
        )?;
        if let Some(bytes) = self.peak_host_bytes {
            writeln!(out, "host memory, peak: {:.1} MB", megabytes(bytes))?;
        }
        self.memory.show(out)?;
        for decode in &self.decode {
            let name = format!("decode step after {}", decode.context);
            table(out, &name, decode.kernel_times.as_deref())?;
        }
        table(out, "prefill chunk", self.prefill_kernel_times.as_deref())
    }
}

impl Memory {
    fn show(&self, out: &mut impl Write) -> std::io::Result<()> {
        let plan = &self.planned;
        writeln!(
            out,
            "device memory for {} positions, planned: {:.1} MB (weights {:.1}, caches {:.1}, windows {:.1}, \
             recurrent states {:.1}, copies of them {:.1}, arenas {:.1}, others {:.1})",
            self.context,
            megabytes(self.planned_total),
            megabytes(plan.weights),
            megabytes(plan.caches),
            megabytes(plan.windows),
            megabytes(plan.recurrent),
            megabytes(plan.copies),
            megabytes(plan.arenas),
            megabytes(plan.others)
        )?;
        let share = |bytes: u64| (bytes as f64 / self.planned_total.max(1) as f64 - 1.0) * 100.0;
        let allocated = self.allocated;
        writeln!(
            out,
            "device memory, peak of all buffers: {:.1} MB ({:+.2} %)",
            megabytes(allocated),
            share(allocated)
        )?;
        if let Some(reserved) = self.reserved {
            writeln!(
                out,
                "device memory, reserved by wgpu: {:.1} MB ({:+.2} %)",
                megabytes(reserved),
                share(reserved)
            )?;
        }
        Ok(())
    }
}

fn line(out: &mut impl Write, name: &str, unit: &str, value: Spread) -> std::io::Result<()> {
    writeln!(
        out,
        "{name:<28} {:>10.2} {unit} ({:.2} to {:.2})",
        value.median, value.min, value.max
    )
}

fn table(out: &mut impl Write, name: &str, rows: Option<&[Row]>) -> std::io::Result<()> {
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
