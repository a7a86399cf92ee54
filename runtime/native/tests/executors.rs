//! The futures under executors that we did not write: they are `Send`, block no thread for long, end when canceled, and
//! may be dropped halfway.

mod common;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{CHUNK, MAX_CONTEXT, Toy, reference};
use kiln_runtime::{
    Bundle, BundleSource, CancelToken, Device, DeviceOptions, DirectorySource, Error, GenerateOptions, Generation,
    LoadOptions, MemorySource, Model, SavedSession, Session, block_on,
};

const PROMPT: [u32; 6] = [3, 1, 4, 1, 5, 9];

fn options(max_tokens: u32) -> GenerateOptions {
    GenerateOptions {
        max_tokens,
        ..GenerateOptions::default()
    }
}

async fn load<S: BundleSource>(source: S) -> Result<Arc<Model>, Error> {
    let bundle = Bundle::open(source).await?;
    let device = Device::open(bundle.manifest(), &DeviceOptions::default()).await?;
    Ok(Arc::new(Model::load(device, &bundle, LoadOptions::default()).await?))
}

async fn generate(session: &mut Session, count: u32) -> Result<Vec<u32>, Error> {
    let mut generation = session.generate(options(count))?;
    let mut ids = Vec::new();
    while let Some(id) = generation.next().await? {
        ids.push(id);
    }
    Ok(ids)
}

/// All that a program does with a model.
async fn whole(source: impl BundleSource) -> Result<Vec<u32>, Error> {
    let model = load(source).await?;
    let mut session = Session::new(model, Some(MAX_CONTEXT)).await?;
    session.feed(&PROMPT).await?;
    let saved = session.save().await?;
    session.restore(&saved).await?;
    session.feed(&[2]).await?;
    assert_eq!(session.logits().await?.len(), 17);
    generate(&mut session, 10).await
}

fn expected() -> Vec<u32> {
    reference::generate(&[&PROMPT[..], &[2]].concat(), 10)
}

fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
}

/// Never called: it compiles only while all futures may move between threads.
#[allow(dead_code, reason = "its compilation is the test")]
fn futures_are_send(
    bundle: &Bundle<DirectorySource>,
    device: fn() -> Device,
    model: &Arc<Model>,
    session: &mut Session,
    saved: &SavedSession,
    generation: &mut Generation<'_>,
    progress: LoadOptions<'_>,
) {
    fn send(_: impl Send) {}
    fn sync<T: Send + Sync>() {}
    send(Bundle::open(DirectorySource::new("")));
    send(bundle.file(""));
    send(kiln_runtime::adapters());
    send(Device::open(bundle.manifest(), &DeviceOptions::default()));
    send(Model::load(device(), bundle, progress));
    send(Session::new(Arc::clone(model), None));
    send(session.feed(&[]));
    send(session.feed_only_new(&[]));
    send(session.feed_turn(&[], 0));
    send(session.logits());
    send(session.logits_of_rows(0..1));
    send(session.mark());
    send(session.synchronize());
    send(session.profile(&[]));
    send(session.save());
    send(session.read_state(0, 0, 4));
    send(session.restore(saved));
    send(generation.next());
    sync::<Model>();
    sync::<Session>();
    sync::<CancelToken>();
    sync::<Bundle<MemorySource>>();
    sync::<Error>();
}

/// A source that needs its executor: every read sleeps first.
struct Sleepy(DirectorySource);

impl BundleSource for Sleepy {
    async fn size(&self, file: &str) -> io::Result<u64> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.0.size(file).await
    }

    async fn read(&self, file: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.0.read(file, offset, buffer).await
    }
}

#[test]
fn a_source_may_await_the_only_thread_there_is() {
    let toy = Toy::new();
    let source = Sleepy(DirectorySource::new(toy.path()));
    assert_eq!(current_thread().block_on(whole(source)).unwrap(), expected());
}

#[test]
fn tasks_of_a_runtime_with_threads() {
    let toy = Toy::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let tasks = [(); 3].map(|()| runtime.spawn(whole(DirectorySource::new(toy.path()))));
    for task in tasks {
        assert_eq!(runtime.block_on(task).unwrap().unwrap(), expected());
    }
}

#[test]
fn another_executor_and_plain_threads() {
    let toy = Toy::new();
    let task = smol::spawn(whole(DirectorySource::new(toy.path())));
    assert_eq!(smol::block_on(task).unwrap(), expected());
    let source = DirectorySource::new(toy.path());
    let thread = std::thread::spawn(|| block_on(whole(source)));
    assert_eq!(thread.join().unwrap().unwrap(), expected());
}

#[test]
fn a_bundle_in_memory_needs_no_files() {
    let toy = Toy::new();
    let manifest = &toy.manifest;
    let kernels = manifest.variants[0].kernels.iter().map(|kernel| kernel.file.clone());
    let files = kernels.chain([manifest.shards[0].file.clone(), "manifest.json".to_string()]);
    let source: MemorySource = files
        .map(|file| {
            let bytes = std::fs::read(toy.file(&file)).unwrap();
            (file, bytes)
        })
        .collect();
    drop(toy);
    assert_eq!(block_on(whole(source.clone())).unwrap(), expected());
    assert_eq!(
        block_on(source.size("manifest.jsom")).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    assert!(block_on(source.read("manifest.json", u64::MAX, &mut [0])).is_err());
    let size = block_on(source.size("manifest.json")).unwrap();
    assert!(block_on(source.read("manifest.json", size - 1, &mut [0; 2])).is_err());
}

/// The toy with a kernel that takes its time, run so many times a step. A chain of rounds that no compiler shortens; llvmpipe
/// ends all loops of a kernel after 65,535.
fn slow_toy(times: usize) -> Toy {
    let mut toy = Toy::new();
    let text = std::fs::read_to_string(toy.file("kernels/mix.wgsl")).unwrap();
    let slow = "var busy = position;
    for (var i = 0u; i < 60000u; i++) { busy = (busy ^ (busy >> 7u)) * 1664525u + i; }
    var sum = select(0u, 17u, busy == 1u);";
    toy.set_kernel("mix", &text.replace("var sum = 0u;", slow));
    let programs = &mut toy.manifest.variants[0].programs;
    for program in [&mut programs.prefill, &mut programs.decode] {
        let mix = program[1].clone();
        program.splice(1..2, vec![mix; times]);
    }
    toy.save();
    toy
}

/// Runs `work` beside a timer of 10 ms on one thread, and gives the longest time between two ticks besides.
async fn beside_a_timer<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let mut work = pin!(work);
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    loop {
        let done = tokio::time::timeout(Duration::from_millis(10), work.as_mut()).await;
        let now = Instant::now();
        longest = longest.max(now - last);
        last = now;
        if let Ok(done) = done {
            return (done, longest);
        }
    }
}

#[test]
fn a_timer_keeps_ticking_while_a_model_loads_and_generates() {
    let toy = slow_toy(150);
    let source = Sleepy(DirectorySource::new(toy.path()));
    current_thread().block_on(async {
        let started = Instant::now();
        let ((), longest) = beside_a_timer(async {
            let mut session = Session::new(load(source).await.unwrap(), Some(MAX_CONTEXT))
                .await
                .unwrap();
            session.feed(&PROMPT).await.unwrap();
            let ids = generate(&mut session, 12).await.unwrap();
            assert_eq!(ids, reference::generate(&PROMPT, 12));
        })
        .await;
        let total = started.elapsed();
        assert!(
            total > Duration::from_millis(300),
            "the kernel is not slow enough: {total:?}"
        );
        assert!(longest < total / 4, "no tick for {longest:?} of {total:?}");
    });
}

#[test]
fn a_cancel_is_seen_while_the_device_is_busy() {
    let toy = slow_toy(300);
    let model = block_on(load(DirectorySource::new(toy.path()))).unwrap();
    let mut session = block_on(Session::new(model, Some(MAX_CONTEXT))).unwrap();
    let cancel_soon = |cancel: CancelToken| {
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            cancel.cancel();
            Instant::now()
        })
    };
    let prompt: Vec<u32> = (0..CHUNK * 4).collect();
    let canceling = cancel_soon(session.cancel_token());
    let fed = block_on(async {
        session.feed(&prompt).await?;
        generate(&mut session, 3).await
    });
    let (seen, canceled) = (Instant::now(), canceling.join().unwrap());
    assert!(matches!(fed, Err(Error::Canceled)), "{fed:?}");
    // What was submitted goes on, and takes far longer than it took to see the cancel.
    block_on(session.synchronize()).unwrap();
    let rest = seen.elapsed();
    assert!(
        seen - canceled < rest / 2,
        "seen after {:?}, the rest took {rest:?}",
        seen - canceled
    );
    // What was taken is a part of the prompt, and the session goes on behind it.
    let held = session.position() as usize;
    assert_eq!(session.tokens(), &prompt[..held]);
    block_on(session.feed(&prompt[held..])).unwrap();
    assert_eq!(block_on(session.logits()).unwrap(), reference::logits(&prompt));
}

/// Polls once and drops.
async fn abandon<T>(work: impl Future<Output = T>) {
    let mut work = pin!(work);
    std::future::poll_fn(|context| {
        let _ = work.as_mut().poll(context);
        std::task::Poll::Ready(())
    })
    .await;
}

#[test]
fn futures_may_be_dropped_halfway() {
    let toy = slow_toy(10);
    current_thread().block_on(async {
        abandon(load(DirectorySource::new(toy.path()))).await;
        let loading = load(DirectorySource::new(toy.path()));
        let _ = tokio::time::timeout(Duration::from_millis(50), loading).await;
        let model = load(DirectorySource::new(toy.path())).await.unwrap();
        abandon(Session::new(Arc::clone(&model), None)).await;
        let mut session = Session::new(model, Some(MAX_CONTEXT)).await.unwrap();

        // Feeding: the position says what was taken.
        let prompt: Vec<u32> = (0..CHUNK * 5).map(|i| i * i % 17).collect();
        while (session.position() as usize) < prompt.len() {
            let rest = prompt[session.position() as usize..].to_vec();
            let _ = tokio::time::timeout(Duration::from_millis(2), session.feed(&rest)).await;
        }
        abandon(session.logits()).await;
        abandon(session.synchronize()).await;
        assert_eq!(session.logits().await.unwrap(), reference::logits(&prompt));

        // Generating: no token is lost.
        let mut ids = Vec::new();
        let mut generation = session.generate(options(9)).unwrap();
        let mut dropped = 0;
        while ids.len() < 9 {
            match tokio::time::timeout(Duration::from_micros(500), generation.next()).await {
                Ok(id) => ids.extend(id.unwrap()),
                Err(_) => dropped += 1,
            }
        }
        drop(generation);
        assert!(dropped > 0);
        assert_eq!(ids, reference::generate(&prompt, 9));

        // Restoring: the session holds nothing then.
        let saved = session.save().await.unwrap();
        abandon(session.restore(&saved)).await;
        assert_eq!(session.position(), 0);
        session.feed(&PROMPT).await.unwrap();
        assert_eq!(session.logits().await.unwrap(), reference::logits(&PROMPT));
        abandon(session.profile(&[1, 2])).await;
        session.feed(&[2]).await.unwrap();
        assert_eq!(generate(&mut session, 10).await.unwrap(), expected());
    });
}

/// Weights that never come, until told so.
struct Endless {
    files: DirectorySource,
    asked: AtomicBool,
}

impl BundleSource for Endless {
    async fn size(&self, file: &str) -> io::Result<u64> {
        self.files.size(file).await
    }

    async fn read(&self, file: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if file.starts_with("weights") {
            self.asked.store(true, Ordering::Relaxed);
            std::future::pending::<()>().await;
        }
        self.files.read(file, offset, buffer).await
    }
}

#[test]
fn a_kernel_that_fails_is_told_before_the_weights_are_there() {
    let mut toy = Toy::new();
    toy.set_kernel("mix", "fn mix( {");
    toy.save();
    let source = Endless {
        files: DirectorySource::new(toy.path()),
        asked: AtomicBool::new(false),
    };
    match block_on(load(source)) {
        Err(Error::Kernel { kernel, .. }) => assert_eq!(kernel, "mix"),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("a broken kernel was loaded"),
    }
}

#[test]
fn a_cancel_ends_loading_even_when_the_source_never_answers() {
    let toy = Toy::new();
    let cancel = CancelToken::new();
    let canceling = cancel.clone();
    let source = Arc::new(Endless {
        files: DirectorySource::new(toy.path()),
        asked: AtomicBool::new(false),
    });
    let waiting = Arc::clone(&source);
    let thread = std::thread::spawn(move || {
        while !waiting.asked.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        canceling.cancel();
    });
    let loaded = block_on(async {
        let bundle = Bundle::open(source).await?;
        let device = Device::open(bundle.manifest(), &DeviceOptions::default()).await?;
        let options = LoadOptions {
            cancel,
            ..LoadOptions::default()
        };
        Model::load(device, &bundle, options).await
    });
    assert!(matches!(loaded.err(), Some(Error::Canceled)));
    thread.join().unwrap();
}
