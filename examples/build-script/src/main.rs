//! A chat program with its language model inside. Each line of standard input is a message, or the arguments are one.

use std::error::Error;
use std::io::{IsTerminal, Write};

use kiln_runtime::text::{Message, TextModel, TokenStream};
use kiln_runtime::{Device, DeviceOptions, GenerateOptions, LoadOptions, Model, Session};

// What build.rs compiled.
kiln_runtime::include_bundle!(mod model);

fn main() -> Result<(), Box<dyn Error>> {
    kiln_runtime::block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let bundle = model::open().await?;
    let device = Device::open(bundle.manifest(), &DeviceOptions::default()).await?;
    let loaded = Model::load(device, &bundle, LoadOptions::default()).await?;
    let mut chat = Chat {
        text: text()?,
        session: Session::new(loaded.into(), None).await?,
        messages: Vec::new(),
    };
    let question: Vec<String> = std::env::args().skip(1).collect();
    if !question.is_empty() {
        return chat.answer(&question.join(" ")).await;
    }
    let terminal = std::io::stdin().is_terminal();
    if terminal {
        eprintln!("{}, {} parameters. Ctrl-D leaves.", model::NAME, model::PARAMETERS);
    }
    loop {
        if terminal {
            eprint!("> ");
        }
        let mut line = String::new();
        if std::io::stdin().read_line(&mut line)? == 0 {
            return Ok(());
        }
        chat.answer(line.trim()).await?;
    }
}

/// Tokenizer and chat template.
fn text() -> Result<TextModel, Box<dyn Error>> {
    let file = |name| model::file(name).map(std::str::from_utf8).transpose();
    let tokenizer = model::file("tokenizer.json").ok_or("the model has no tokenizer")?;
    let (config, template) = (file("tokenizer_config.json")?, file("chat_template.jinja")?);
    Ok(TextModel::load(tokenizer, config, template)?)
}

struct Chat {
    text: TextModel,
    session: Session,
    messages: Vec<Message>,
}

impl Chat {
    /// Prints the answer as it comes.
    async fn answer(&mut self, question: &str) -> Result<(), Box<dyn Error>> {
        self.messages.push(Message::new("user", question));
        let prompt = self.text.encode_chat(&self.messages, true)?;
        // Only what is new is computed.
        let known = self.session.keep_prefix(&prompt)?;
        self.session.feed(&prompt[known..]).await?;

        let mut stream = TokenStream::new(&self.text, Vec::new());
        let mut answer = String::new();
        let mut show = |piece: String| {
            answer += &piece;
            print!("{piece}");
            std::io::stdout().flush()
        };
        let mut generation = self.session.generate(GenerateOptions::default())?;
        while let Some(id) = generation.next().await? {
            show(stream.push(id)?.text)?;
        }
        show(stream.finish()? + "\n")?;
        self.messages.push(Message::new("assistant", answer.trim_end()));
        Ok(())
    }
}
