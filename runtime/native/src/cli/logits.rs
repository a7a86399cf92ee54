use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::json;

use super::args::LogitsArgs;
use super::open;
use crate::output::OutputFile;
use crate::{CancelToken, Session};

/// Logits held in memory at once.
const BLOCK_BYTES: usize = 8 << 20;

pub(super) async fn run(args: LogitsArgs, cancel: &CancelToken) -> anyhow::Result<ExitCode> {
    let bundle = open::bundle(&args.model.bundle).await?;
    let facts = &bundle.manifest().model;
    let (vocab, chunk) = (facts.vocab_size as usize, facts.chunk);
    let model = open::model(&bundle, &args.model, open::Purpose::Compare, cancel).await?;
    let mut session = Session::new(model, Some(args.ids.len() as u32)).await?;
    session.set_cancel_token(cancel.clone());

    let cannot = || format!("cannot write {}", args.output.display());
    let mut file = OutputFile::create(&args.output).with_context(cannot)?;
    let block = (BLOCK_BYTES / (vocab * 4)).max(1);
    let bar = open::bar(
        args.ids.len() as u64,
        "logits {bar:30} {pos}/{len} tokens {per_sec} {eta}",
    );
    let write = async {
        file.write_all(&header(args.ids.len(), vocab)).with_context(cannot)?;
        for ids in args.ids.chunks(args.chunk.unwrap_or(chunk).min(chunk) as usize) {
            session.feed(ids).await?;
            let rows = session.rows()?;
            for start in rows.clone().step_by(block) {
                cancel.check()?;
                let end = rows.end.min(start + block as u32);
                for logit in session.logits_of_rows(start..end).await? {
                    file.write_all(&logit.to_le_bytes()).with_context(cannot)?;
                }
                bar.inc(u64::from(end - start));
            }
        }
        anyhow::Ok(())
    };
    write.await?;
    bar.finish_and_clear();
    file.finish().with_context(cannot)?;
    Ok(ExitCode::SUCCESS)
}

/// The safetensors header of `logits` f32 `[tokens, vocab]`, with its length, padded to 8 bytes.
fn header(tokens: usize, vocab: usize) -> Vec<u8> {
    let bytes = tokens as u64 * vocab as u64 * 4;
    let tensor = json!({ "dtype": "F32", "shape": [tokens, vocab], "data_offsets": [0, bytes] });
    let mut header = json!({ "logits": tensor }).to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.into_bytes());
    bytes
}
