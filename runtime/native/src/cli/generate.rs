use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::json;

use super::answer::{Display, answer};
use super::args::GenerateArgs;
use super::open::Prompt;
use super::{INTERRUPTED, open, session_file};
use crate::text::{ChannelKind, ChannelStream, Message, TextModel};
use crate::{CancelToken, SavedSession, Session, StopReason};

pub(super) async fn run(args: GenerateArgs, cancel: &CancelToken) -> anyhow::Result<ExitCode> {
    let bundle = open::bundle(&args.model.bundle).await?;
    let text = open::text(&bundle, &args.text).await?;
    let saved = session_file::read(args.session.as_deref())?;
    let prompt = prompt(&args, text.as_ref())?;
    let stream = stream(&args, text.as_ref(), &prompt)?;
    let prompt = prompt.ids;
    let model = open::model(&bundle, &args.model, open::Purpose::Run, cancel).await?;
    let mut options = open::generate_options(&model, &args.sampling, 0.0);
    if args.ignore_eos {
        options.stop_ids = Some(Vec::new());
    }
    let context = context(&args, prompt.len(), saved.as_ref(), model.manifest().model.max_context);
    let mut session = Session::new(model.clone(), context).await?;
    session.set_cancel_token(cancel.clone());
    if let Some(saved) = saved {
        session.restore(&saved).await?;
    }

    let started = Instant::now();
    let kept = session.keep_prefix(&prompt)?;
    open::feed(&mut session, &prompt[kept..]).await?;
    let submitted = started.elapsed();
    let mut display = Display::new(args.json, args.text.hide_reasoning);
    let answer = answer(&mut session, options, stream, &mut display).await?;
    let report = answer.report;
    if args.json {
        let first = (submitted + report.first_token).as_secs_f64();
        let load = model.load_report();
        let object = json!({
            "prompt_ids": prompt,
            "reused_tokens": kept,
            "ids": answer.ids,
            "text": text.is_some().then(|| answer.transcript.text_of(ChannelKind::Answer).unwrap_or_default()),
            "channels": answer.transcript,
            "stop": report.stop,
            "device": model.device().name(),
            "variant": model.variant().name,
            "kernels": model.kernel_checks().to_string(),
            "timings": {
                "load_s": load.total.as_secs_f64(),
                "pipelines_s": load.pipelines.as_secs_f64(),
                "time_to_first_token_s": first,
                "prompt_tokens_per_s": (prompt.len() - kept) as f64 / first,
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
    session_file::write(args.session.as_deref(), &session, serde_json::Value::Null).await?;
    Ok(if report.stop == StopReason::Canceled {
        ExitCode::from(INTERRUPTED)
    } else {
        ExitCode::SUCCESS
    })
}

/// As asked, or no more than prompt and answer take; `None`: the model's default.
fn context(args: &GenerateArgs, prompt: usize, saved: Option<&SavedSession>, max: u32) -> Option<u32> {
    let tokens = |count: usize| u32::try_from(count).unwrap_or(max);
    let held = saved.map_or(0, |saved| tokens(saved.tokens().len()));
    let needed = |answer: u32| tokens(prompt).saturating_add(answer).max(held).min(max);
    args.sampling.context.or_else(|| args.sampling.max_tokens.map(needed))
}

fn prompt(args: &GenerateArgs, text: Option<&TextModel>) -> anyhow::Result<Prompt> {
    let prompt = match (&args.ids, &args.prompt) {
        (Some(ids), _) => raw(ids.clone()),
        (None, Some(prompt)) => {
            let text = text.context("the bundle has no tokenizer; give the prompt as --ids")?;
            if args.raw || !text.has_chat_template() {
                raw(text.encode(prompt, true)?)
            } else {
                open::prompt(text, &[Message::new("user", prompt)])?
            }
        }
        (None, None) => raw(Vec::new()),
    };
    if prompt.ids.is_empty() {
        bail!("the prompt is empty; give at least one token");
    }
    Ok(prompt)
}

/// Any of it may have opened the channel that the answer begins in.
fn raw(ids: Vec<u32>) -> Prompt {
    Prompt { ids, opening: 0 }
}

fn stream<'a>(
    args: &GenerateArgs,
    text: Option<&'a TextModel>,
    prompt: &Prompt,
) -> anyhow::Result<Option<ChannelStream<'a>>> {
    let stops = args.sampling.stop.clone();
    let stream = |text| match args.raw {
        true => Ok(ChannelStream::plain(text, stops)),
        false => ChannelStream::new(text, &prompt.ids[prompt.opening..], stops),
    };
    Ok(text.map(stream).transpose()?)
}
