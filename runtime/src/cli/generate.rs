use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::json;

use super::args::GenerateArgs;
use super::{INTERRUPTED, open};
use crate::text::{Message, TextModel, TokenStream};
use crate::{CancelToken, GenerateOptions, GenerationReport, Session, StopReason};

pub(super) async fn run(args: GenerateArgs, cancel: &CancelToken) -> anyhow::Result<ExitCode> {
    let bundle = open::bundle(&args.model.bundle).await?;
    let text = open::text(&bundle).await?;
    let prompt = prompt_ids(&args, text.as_ref())?;
    let model = open::model(&bundle, &args.model, open::Purpose::Run, cancel).await?;
    let mut options = open::generate_options(&model, &args.sampling, 0.0);
    if args.ignore_eos {
        options.stop_ids = Some(Vec::new());
    }
    let context = context(&args, prompt.len(), model.manifest().model.max_context);
    let mut session = Session::new(model.clone(), context).await?;
    session.set_cancel_token(cancel.clone());

    let started = Instant::now();
    open::feed(&mut session, &prompt).await?;
    let submitted = started.elapsed();
    let stops = args.sampling.stop.clone();
    let mut show = std::io::stdout();
    let mut on_text = |piece: &str| -> std::io::Result<()> {
        if args.json {
            return Ok(());
        }
        show.write_all(piece.as_bytes())?;
        show.flush()
    };
    let answer = answer(&mut session, options, text.as_ref(), stops, &mut on_text).await?;
    let report = answer.report;
    if args.json {
        let first = (submitted + report.first_token).as_secs_f64();
        let load = model.load_report();
        let object = json!({
            "prompt_ids": prompt,
            "ids": answer.ids,
            "text": answer.text,
            "stop": report.stop,
            "device": model.device().name(),
            "variant": model.variant().name,
            "timings": {
                "load_s": load.total.as_secs_f64(),
                "pipelines_s": load.pipelines.as_secs_f64(),
                "time_to_first_token_s": first,
                "prompt_tokens_per_s": prompt.len() as f64 / first,
                "decode_tokens_per_s": report.per_token().map(|time| 1.0 / time.as_secs_f64()),
                "encode_us_per_step": report.encoding.as_secs_f64() * 1e6 / f64::from(report.steps.max(1)),
                "total_s": (submitted + report.total).as_secs_f64(),
            },
        });
        writeln!(std::io::stdout(), "{object}")?;
    } else if text.is_some() {
        writeln!(std::io::stdout())?;
    } else {
        let ids: Vec<String> = answer.ids.iter().map(u32::to_string).collect();
        writeln!(std::io::stdout(), "{}", ids.join(","))?;
    }
    Ok(if report.stop == StopReason::Canceled {
        ExitCode::from(INTERRUPTED)
    } else {
        ExitCode::SUCCESS
    })
}

/// As asked, or no more than prompt and answer take; `None`: the model's default.
fn context(args: &GenerateArgs, prompt: usize, max: u32) -> Option<u32> {
    let sampling = &args.sampling;
    let needed = |tokens: u32| u32::try_from(prompt).unwrap_or(max).saturating_add(tokens).min(max);
    sampling.context.or_else(|| sampling.max_tokens.map(needed))
}

fn prompt_ids(args: &GenerateArgs, text: Option<&TextModel>) -> anyhow::Result<Vec<u32>> {
    let ids = match (&args.ids, &args.prompt) {
        (Some(ids), _) => ids.clone(),
        (None, Some(prompt)) => {
            let text = text.context("the bundle has no tokenizer; give the prompt as --ids")?;
            if args.raw || !text.has_chat_template() {
                text.encode(prompt, true)?
            } else {
                text.encode_chat(&[Message::new("user", prompt)], true)?
            }
        }
        (None, None) => Vec::new(),
    };
    if ids.is_empty() {
        bail!("the prompt is empty; give at least one token");
    }
    Ok(ids)
}

/// What came out of one generation.
pub(super) struct Answer {
    /// With the end token.
    pub(super) ids: Vec<u32>,
    /// `None` without a tokenizer.
    pub(super) text: Option<String>,
    pub(super) report: GenerationReport,
}

/// Generates after what was fed, and shows the text as it comes.
pub(super) async fn answer(
    session: &mut Session,
    options: GenerateOptions,
    text: Option<&TextModel>,
    stops: Vec<String>,
    on_text: &mut dyn FnMut(&str) -> std::io::Result<()>,
) -> anyhow::Result<Answer> {
    let mut stream = text.map(|text| TokenStream::new(text, stops));
    let mut shown = text.map(|_| String::new());
    let mut show = |piece: &str| {
        if let Some(shown) = &mut shown {
            shown.push_str(piece);
        }
        on_text(piece)
    };
    let mut ids = Vec::new();
    let mut generation = session.generate(options)?;
    let mut stopped = false;
    while !stopped && let Some(id) = generation.next().await? {
        ids.push(id);
        if let Some(stream) = &mut stream {
            let pushed = stream.push(id)?;
            show(&pushed.text)?;
            stopped = pushed.stopped;
        }
    }
    if let Some(stream) = stream {
        show(&stream.finish()?)?;
    }
    let mut report = generation.report();
    if stopped {
        report.stop = StopReason::StopText;
    }
    Ok(Answer {
        ids,
        text: shown,
        report,
    })
}
