//! Input with a program that reads when the test lets it.

use super::*;
use marram_backend_api::{BoxFuture, Error, ErrorKind, Result};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// What a program got, and whether it reads.
#[derive(Debug, Default)]
struct Program {
    got: Vec<u8>,
    writes: usize,
    closed: bool,
    size: Option<(u16, u16)>,
    broken: bool,
}

#[derive(Debug)]
struct Input {
    program: Arc<Mutex<Program>>,
    /// A permit for each write that it takes.
    reads: Arc<Semaphore>,
}

impl ExecInput for Input {
    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.reads.acquire().await.unwrap().forget();
            let mut program = self.program.lock().unwrap();
            if program.broken {
                return Err(Error::new(ErrorKind::Internal, "writing", "it does not read"));
            }
            program.writes += 1;
            program.closed |= bytes.is_empty();
            program.got.extend_from_slice(bytes);
            Ok(())
        })
    }

    fn resize(&mut self, rows: u16, columns: u16) -> BoxFuture<'_, Result<()>> {
        self.program.lock().unwrap().size = Some((rows, columns));
        Box::pin(async { Ok(()) })
    }
}

/// A stream whose task goes on only when the test says so.
struct Scene {
    intake: Arc<Intake>,
    program: Arc<Mutex<Program>>,
    reads: Arc<Semaphore>,
    granted: Arc<Mutex<Vec<u32>>>,
    feeding: std::pin::Pin<Box<dyn Future<Output = ()>>>,
}

impl Scene {
    fn new() -> Self {
        let intake = Arc::new(Intake::default());
        let program = Arc::new(Mutex::new(Program::default()));
        let (reads, granted) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
        let mut input = Input { program: program.clone(), reads: reads.clone() };
        let (own, grants) = (intake.clone(), granted.clone());
        let feeding = Box::pin(async move {
            let grant = |bytes| {
                grants.lock().unwrap().push(bytes);
                std::future::ready(())
            };
            feed(&own, &mut input, grant).await;
        });
        let mut scene = Self { intake, program, reads, granted, feeding };
        scene.go_on();
        scene
    }

    fn go_on(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        assert!(self.feeding.as_mut().poll(&mut context).is_pending(), "it has no end");
    }

    fn reads(&mut self, writes: usize) {
        self.reads.add_permits(writes);
        self.go_on();
    }

    fn granted(&self) -> Vec<u32> {
        std::mem::take(&mut *self.granted.lock().unwrap())
    }

    fn got(&self) -> usize {
        self.program.lock().unwrap().got.len()
    }

    fn over(&self) -> Option<Option<StreamEnd>> {
        let over = std::pin::pin!(self.intake.over());
        match over.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(end) => Some(end),
            Poll::Pending => None,
        }
    }
}

const WHOLE: usize = CHUNK_BYTES_MAX;

#[test]
fn what_the_program_takes_is_granted_anew() {
    let mut scene = Scene::new();
    assert_eq!(scene.granted(), [CREDIT_BYTES]);
    for _ in 0..CREDIT_BYTES as usize / WHOLE {
        scene.intake.put(&[7; WHOLE]);
    }
    scene.go_on();
    assert_eq!((scene.got(), scene.granted()), (0, vec![]), "it does not read");
    assert_eq!(scene.over(), None);
    scene.reads(1);
    assert_eq!((scene.got(), scene.granted()), (WHOLE, vec![GRANT_BYTES_MIN]));
    scene.intake.put(&[7; WHOLE]);
    scene.reads(100);
    assert_eq!(scene.got(), 5 * WHOLE);
    assert_eq!(scene.granted().iter().sum::<u32>(), CREDIT_BYTES);
    assert_eq!(scene.over(), None);
}

#[test]
fn more_than_was_granted_ends_the_stream_also_while_the_program_does_not_read() {
    let mut scene = Scene::new();
    for _ in 0..CREDIT_BYTES as usize / WHOLE {
        scene.intake.put(&[7; WHOLE]);
    }
    scene.go_on();
    scene.intake.put(&[7]);
    let Some(Some(StreamEnd::Fault(StreamFault::TooMany, why))) = scene.over() else {
        panic!("the stream goes on");
    };
    assert_eq!(why, "256 bytes of input came, 0 were granted");
    assert!(scene.intake.lock().bytes.len() <= CREDIT_BYTES as usize);
    // Before anything was granted, nothing may come.
    let early = Intake::default();
    early.put(b"x");
    assert!(early.lock().over.is_some());
    // Closing is free.
    let early = Intake::default();
    early.put(b"");
    assert!(early.lock().over.is_none());
}

#[test]
fn letters_are_put_together_and_cost_more_than_their_length() {
    let mut scene = Scene::new();
    scene.granted();
    let most = CREDIT_BYTES / 256;
    for _ in 0..most {
        scene.intake.put(b"x");
    }
    assert_eq!(scene.over(), None);
    scene.reads(1);
    assert_eq!(scene.got(), most as usize, "one write is enough");
    assert_eq!(scene.granted(), [CREDIT_BYTES], "all that was paid comes back");
    for _ in 0..most {
        scene.intake.put(b"x");
    }
    assert_eq!(scene.over(), None);
    scene.intake.put(b"x");
    assert!(scene.over().is_some());
}

#[test]
fn grants_sizes_and_the_end_do_not_wait_behind_input() {
    let mut scene = Scene::new();
    scene.intake.put(&[7; WHOLE]);
    scene.go_on();
    scene.intake.grant_output(u32::MAX);
    scene.intake.grant_output(1);
    assert_eq!(scene.intake.output.available_permits(), CREDIT_BYTES as usize);
    scene.intake.resize(1, 2);
    scene.intake.resize(3, 4);
    scene.intake.put(b"");
    scene.reads(2);
    let program = scene.program.lock().unwrap();
    assert_eq!((program.size, program.closed), (Some((3, 4)), true));
    assert_eq!((program.got.len(), program.writes), (WHOLE, 2), "the input, then its end");
    drop(program);
    scene.intake.close();
    assert_eq!(scene.over(), Some(None));
    scene.intake.put(&[7; WHOLE]);
    assert_eq!(scene.over(), Some(None), "the first end stays");
}

#[test]
fn a_program_that_reads_no_more_is_granted_no_more() {
    let mut scene = Scene::new();
    scene.granted();
    scene.program.lock().unwrap().broken = true;
    scene.intake.put(&[7; WHOLE]);
    scene.reads(1);
    scene.intake.put(&[7; WHOLE]);
    scene.intake.put(b"");
    scene.reads(100);
    assert_eq!((scene.got(), scene.granted(), scene.over()), (0, vec![], None));
    assert!(scene.intake.lock().bytes.is_empty(), "and nothing is kept for it");
}
