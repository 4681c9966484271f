//! Whatever happens, in whatever order: stories that a seed tells. Each is printed when it goes wrong.

use std::{collections::BTreeMap, panic::AssertUnwindSafe};

use futures_util::FutureExt;
use proto::ambient::Random;

use super::*;
use crate::session::saver::SaveError;

/// Stories that are told.
const STORIES: u64 = 1500;
/// What happens in each.
const STEPS: usize = 40;

/// What became of an execution, as the story knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Fate {
    started: bool,
    saved: bool,
}

/// A story on its way.
struct Told {
    story: Story,
    chance: Random,
    /// By operation number.
    fates: BTreeMap<u32, Fate>,
    runs: Option<Run>,
    save: Option<Save>,
    running: Option<u32>,
    /// The session cannot go on, for a reason that the story gave.
    is_over: bool,
    steps: Vec<String>,
}

impl Told {
    async fn new(seed: u64) -> Self {
        let (story, _) = Story::begins_with("0").await;
        Self {
            story,
            chance: Random::seeded(seed),
            fates: BTreeMap::from([(0, Fate::default())]),
            runs: None,
            save: None,
            running: None,
            is_over: false,
            steps: vec![],
        }
    }

    /// Sees what the session did meanwhile.
    fn look(&mut self) {
        while let Ok(run) = self.story.runs.try_recv() {
            let number: u32 = run.code.parse().unwrap();
            let fate = self.fates.get_mut(&number).unwrap();
            assert!(!fate.started, "{number} starts twice");
            fate.started = true;
            self.running = Some(number);
            self.runs = Some(run);
        }
        let saves = self.story.saves.as_mut();
        if let Some(save) = saves.and_then(Saves::next_now) {
            assert!(self.save.is_none(), "two saves at once");
            self.save = Some(save);
        }
    }

    async fn step(&mut self) {
        let what = self.chance.below(20);
        let done = match what {
            0..6 => {
                let number = self.story.asked + 1;
                self.fates.insert(number, Fate::default());
                self.story.ask(code(&number.to_string()));
                format!("ask {number}")
            }
            6..8 if self.story.opening.is_some() => {
                self.story.opens();
                "open".to_owned()
            }
            8..11 => match self.runs.take() {
                Some(run) => {
                    run.prints("");
                    "finish".to_owned()
                }
                None => return,
            },
            11..14 => match self.save.take() {
                Some(save) => {
                    self.succeed(save);
                    "save".to_owned()
                }
                None => return,
            },
            14 => match self.save.take() {
                Some(save) => {
                    save.comes_to(Err(SaveError::Ended));
                    "fail to save".to_owned()
                }
                None => return,
            },
            15 => {
                let target = self.chance.below(u64::from(self.story.asked) + 1);
                let target = format!("op-{target}").parse().unwrap();
                self.story.ask(Request::Cancel { target });
                "cancel".to_owned()
            }
            16 => {
                if let Some(process) = self.story.process.clone() {
                    self.story.has_another_kernel();
                    process.gone.cancel();
                }
                "kill the kernel".to_owned()
            }
            17 => {
                let time = Duration::from_secs(self.chance.below(90));
                tokio::time::sleep(time).await;
                format!("{time:?} pass")
            }
            18 if self.chance.below(6) == 0 => {
                self.is_over = true;
                self.story.tell(Note::HandOver);
                "hand over".to_owned()
            }
            19 if self.chance.below(6) == 0 => {
                self.is_over = true;
                self.story.ask(Request::Stop);
                "stop".to_owned()
            }
            _ => return,
        };
        self.steps.push(done);
    }

    /// Everything comes to an end: what runs ends, what is to be saved is, and the session is stopped.
    async fn come_to_the_end(&mut self) {
        if self.story.opening.is_some() {
            self.story.opens();
        }
        if !self.is_over && !self.story.jobs.is_closed() {
            self.story.ask(Request::Stop);
        }
        for _ in 0..10_000 {
            if self.story.actor.is_finished() {
                break;
            }
            self.story.settle().await;
            self.look();
            if let Some(run) = self.runs.take() {
                run.prints("");
            }
            if let Some(save) = self.save.take() {
                self.succeed(save);
            }
        }
    }

    /// The files of what ran last are saved.
    fn succeed(&mut self, save: Save) {
        let fate = self.running.and_then(|number| self.fates.get_mut(&number));
        if let Some(fate) = fate {
            fate.saved = true;
        }
        save.succeeds();
    }

    /// What must be true of every story.
    fn check(&self) {
        assert!(self.story.actor.is_finished(), "the session does not end");
        for number in 0..=self.story.asked {
            let inbox = format!("inbox-{number}");
            assert_eq!(self.story.frames.answers(&inbox), 1, "{inbox}");
        }
        for (number, fate) in &self.fates {
            for body in self.story.frames.of(&format!("inbox-{number}")) {
                if let FrameBody::Done(Answer::Executed(Carried::Inline(outcome))) = body {
                    let ran = outcome.ending != Ending::Cancelled { restarted: false };
                    assert!(!ran || fate.started, "{number} is answered and never ran");
                    assert!(
                        !fate.started || fate.saved,
                        "{number} is answered before it is saved"
                    );
                }
            }
        }
        assert!(self.story.table.is_empty());
    }
}

/// Tells the story of a seed; says whether all was as it must be, and else what happened in it.
async fn tell(seed: u64) -> Result<(), Vec<String>> {
    let mut told = Told::new(seed).await;
    let telling = AssertUnwindSafe(async {
        for _ in 0..STEPS {
            // Whoever asks for a session that is gone is none of its callers.
            if told.story.jobs.is_closed() {
                break;
            }
            told.step().await;
            told.story.settle().await;
            told.look();
        }
        told.come_to_the_end().await;
        told.check();
    });
    telling.catch_unwind().await.map_err(|_| told.steps)
}

#[test]
fn whatever_happens_everybody_is_answered_once_and_never_before_the_files_are_saved() {
    for seed in 0..STORIES {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build();
        let told = runtime.unwrap().block_on(tell(seed));
        told.unwrap_or_else(|steps| panic!("seed {seed}: {steps:?}"));
    }
}
