use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use serde_json::json;

use super::args::LogitsArgs;
use super::open;
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

    let mut file = Pending::create(&args.output)?;
    let block = (BLOCK_BYTES / (vocab * 4)).max(1);
    let bar = open::bar(
        args.ids.len() as u64,
        "logits {bar:30} {pos}/{len} tokens {per_sec} {eta}",
    );
    let write = async {
        file.header(args.ids.len(), vocab)?;
        for ids in args.ids.chunks(args.chunk.unwrap_or(chunk).min(chunk) as usize) {
            session.feed(ids).await?;
            let rows = session.rows()?;
            for start in rows.clone().step_by(block) {
                cancel.check()?;
                let end = rows.end.min(start + block as u32);
                file.write(&session.logits_of_rows(start..end).await?)?;
                bar.inc(u64::from(end - start));
            }
        }
        anyhow::Ok(())
    };
    write.await?;
    bar.finish_and_clear();
    file.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// A file written aside: it takes its name when it is complete, and is removed when it never is.
struct Pending {
    writer: Option<BufWriter<File>>,
    aside: PathBuf,
    path: PathBuf,
}

impl Pending {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let mut name = path.file_name().context("the output needs a file name")?.to_os_string();
        name.push(format!(".{}.partial", std::process::id()));
        let aside = path.with_file_name(name);
        let file = File::create_new(&aside).with_context(|| format!("cannot write {}", aside.display()))?;
        Ok(Self {
            writer: Some(BufWriter::new(file)),
            aside,
            path: path.to_path_buf(),
        })
    }

    /// The safetensors header of `logits` f32 `[tokens, vocab]`, padded to 8 bytes.
    fn header(&mut self, tokens: usize, vocab: usize) -> anyhow::Result<()> {
        let bytes = tokens as u64 * vocab as u64 * 4;
        let tensor = json!({ "dtype": "F32", "shape": [tokens, vocab], "data_offsets": [0, bytes] });
        let mut header = json!({ "logits": tensor }).to_string();
        while !header.len().is_multiple_of(8) {
            header.push(' ');
        }
        self.bytes(&(header.len() as u64).to_le_bytes())?;
        self.bytes(header.as_bytes())
    }

    fn write(&mut self, values: &[f32]) -> anyhow::Result<()> {
        for value in values {
            self.bytes(&value.to_le_bytes())?;
        }
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let path = &self.path;
        let writer = self.writer.as_mut().context("the file is closed")?;
        writer
            .write_all(bytes)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn finish(mut self) -> anyhow::Result<()> {
        let context = || format!("cannot write {}", self.path.display());
        if let Some(mut writer) = self.writer.take() {
            writer.flush().with_context(context)?;
        }
        std::fs::rename(&self.aside, &self.path).with_context(context)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // After `finish` there is nothing of this name.
        let _ = std::fs::remove_file(&self.aside);
    }
}
