//! Cells and shell commands, run to their end.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use proto::execution::Bundle;
use ulid::Ulid;

use super::{
    Kernel,
    cell::{Cell, CellEnd},
    displays::Displays,
    exchange::Meaning,
    frame::{FromKernel, ToKernel},
    output::{Output, between},
    violation::Gone,
};
use crate::outlet::Outlet;

/// What a kernel is to run, and what becomes of its output.
#[derive(Debug)]
pub struct Program<'a> {
    /// Source text.
    pub text: &'a str,
    /// Environment variables, set for this run alone.
    pub environment: &'a BTreeMap<String, String>,
    /// Bytes that are kept of each output stream.
    pub output_bytes: u64,
    /// Gets the whole output as it comes.
    pub outlet: Option<Arc<Outlet>>,
}

impl<'a> Program<'a> {
    /// Text in the environment as it is.
    #[must_use]
    pub fn plain(text: &'a str, output_bytes: u64) -> Self {
        const NONE: &BTreeMap<String, String> = &BTreeMap::new();
        Self {
            text,
            environment: NONE,
            output_bytes,
            outlet: None,
        }
    }
}

impl Kernel {
    /// Runs a cell to its end, whatever ends it.
    pub async fn run(&mut self, program: &Program<'_>) -> Cell {
        let id = unguessable();
        // Of commands the output is their own alone.
        let between = self.take_between();
        let request = ToKernel::Execute {
            id,
            code: program.text,
            environment: program.environment,
        };
        self.run_to_the_end(id, &request, between, program).await
    }

    /// Runs a shell command in the same way.
    pub async fn run_command(&mut self, program: &Program<'_>) -> Cell {
        let id = unguessable();
        let request = ToKernel::Command {
            id,
            command: program.text,
            environment: program.environment,
        };
        drop(self.take_between());
        self.run_to_the_end(id, &request, between(), program).await
    }

    /// What was printed since the last execution.
    fn take_between(&mut self) -> Output {
        let mut taken = std::mem::replace(&mut self.between, between());
        self.drain(&mut taken);
        taken
    }

    async fn run_to_the_end(
        &mut self,
        id: u64,
        request: &ToKernel<'_>,
        between: Output,
        program: &Program<'_>,
    ) -> Cell {
        let outlet = program.outlet.as_ref();
        let mut output = Output::new(program.output_bytes).through(outlet);
        output.begin_with(between);
        let mut displays = Displays::through(outlet);
        let end = self.until_end(id, request, &mut output, &mut displays);
        let end = end.await.unwrap_or_else(CellEnd::from);
        self.drain(&mut output);
        Cell::bounded(end, output, displays, program.output_bytes)
    }

    async fn until_end(
        &mut self,
        id: u64,
        request: &ToKernel<'_>,
        output: &mut Output,
        displays: &mut Displays<'_>,
    ) -> Result<CellEnd, Gone> {
        self.interrupted.store(false, Ordering::Relaxed);
        let interrupted = self.interrupted();
        let meaning = |frame, output: &mut Output| match frame {
            FromKernel::Done {
                id: of,
                result,
                error,
            } if of == id => Meaning::Answer(CellEnd::Done {
                result: result.map(Bundle::from),
                error,
            }),
            FromKernel::Exited { id: of, status } if of == id => {
                Meaning::Answer(CellEnd::Exited(status))
            }
            FromKernel::Display { id: of, name, data } if of == id => {
                displays.push(name, data);
                Meaning::More
            }
            FromKernel::Update { id: of, name, data } if of == id => {
                displays.update(name, data);
                Meaning::More
            }
            FromKernel::Clear { id: of } if of == id => {
                output.clear();
                displays.clear();
                Meaning::More
            }
            FromKernel::Interrupted { id: of } if of == id => {
                interrupted.store(true, Ordering::Relaxed);
                Meaning::More
            }
            _ => Meaning::OutOfTurn,
        };
        self.ask(request, output, meaning).await
    }

    /// What the pipes hold when the kernel has answered was printed before.
    pub(super) fn drain(&mut self, output: &mut Output) {
        self.stdout.drain(&mut output.stdout);
        self.stderr.drain(&mut output.stderr);
    }
}

/// A number that nobody can know before it is sent, so that no answer can be written ahead.
#[expect(
    clippy::disallowed_methods,
    reason = "a number that can be handed in can be known: it is a secret from the session's code"
)]
fn unguessable() -> u64 {
    let (_, number) = Ulid::new().into();
    number
}
