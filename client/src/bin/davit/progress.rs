//! Progress of pulls, pushes and imports: bars on a terminal, plain lines
//! elsewhere.

use std::{collections::HashMap, time::Duration};

use davit_client::v1::{
    PullProgress, PushProgress, pull_progress::Stage as Pull, push_progress::Stage as Push,
};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::human::short_id;

/// Shows how far each layer is.
#[derive(Debug)]
pub(crate) struct Progress {
    bars: MultiProgress,
    layers: HashMap<String, ProgressBar>,
    stages: HashMap<String, i32>,
    terminal: bool,
    quiet: bool,
}

impl Progress {
    /// `quiet` shows nothing at all.
    pub(crate) fn new(terminal: bool, quiet: bool) -> Self {
        Self {
            bars: MultiProgress::new(),
            layers: HashMap::new(),
            stages: HashMap::new(),
            terminal: terminal && !quiet,
            quiet,
        }
    }

    /// Shows one message of a pull.
    pub(crate) fn pull(&mut self, message: &PullProgress) {
        let stage = message.stage();
        let word = match stage {
            Pull::Unspecified | Pull::Done => return,
            Pull::Resolved => {
                self.say(&message.message);
                return;
            }
            Pull::Queued => "Waiting",
            Pull::Downloading => "Downloading",
            Pull::Downloaded => "Download complete",
            Pull::Extracting => "Extracting",
            Pull::Complete => "Pull complete",
            Pull::Exists => "Already exists",
        };
        let over = matches!(stage, Pull::Complete | Pull::Exists);
        self.show(
            &message.layer,
            message.stage,
            word,
            over,
            message.current,
            message.total,
        );
    }

    /// Shows one message of a push.
    pub(crate) fn push(&mut self, message: &PushProgress) {
        let stage = message.stage();
        let mounted;
        let word = match stage {
            Push::Unspecified | Push::Done => return,
            Push::Queued => "Waiting",
            Push::Uploading => "Pushing",
            Push::Pushed => "Pushed",
            Push::Exists => "Layer already exists",
            Push::Mounted => {
                mounted = format!("Mounted from {}", message.message);
                &mounted
            }
        };
        let over = matches!(stage, Push::Pushed | Push::Exists | Push::Mounted);
        self.show(
            &message.digest,
            message.stage,
            word,
            over,
            message.current,
            message.total,
        );
    }

    /// Shows bytes that pass by.
    pub(crate) fn bytes(&mut self, word: &str, current: i64) {
        if self.terminal {
            let bar = self.bar("");
            bar.set_message(format!("{word} {}", crate::human::size(current)));
        }
    }

    /// Prints a line above the bars.
    pub(crate) fn say(&self, text: &str) {
        if self.quiet || text.is_empty() {
            return;
        }
        if self.terminal {
            let _ = self.bars.println(text);
        } else {
            let _ = crate::context::line(text);
        }
    }

    /// Leaves the bars as they are and ends.
    pub(crate) fn finish(self) {
        for bar in self.layers.values() {
            if !bar.is_finished() {
                bar.abandon();
            }
        }
    }

    fn show(&mut self, layer: &str, stage: i32, word: &str, over: bool, current: i64, total: i64) {
        if layer.is_empty() || self.quiet {
            return;
        }
        let changed = self.stages.insert(layer.to_owned(), stage) != Some(stage);
        if !self.terminal {
            if changed {
                self.say(&format!("{}: {word}", short_id(layer)));
            }
            return;
        }
        let bar = self.bar(layer);
        if over {
            bar.set_style(plain_style());
            bar.finish_with_message(format!("{}: {word}", short_id(layer)));
        } else {
            if let Ok(total) = u64::try_from(total)
                && total > 0
            {
                bar.set_style(bar_style());
                bar.set_length(total);
            }
            bar.set_position(u64::try_from(current).unwrap_or_default());
            bar.set_message(format!("{}: {word}", short_id(layer)));
        }
    }

    fn bar(&mut self, layer: &str) -> ProgressBar {
        self.layers
            .entry(layer.to_owned())
            .or_insert_with(|| {
                let bar = self
                    .bars
                    .add(ProgressBar::no_length().with_style(plain_style()));
                bar.enable_steady_tick(Duration::from_millis(100));
                bar
            })
            .clone()
    }
}

fn plain_style() -> ProgressStyle {
    ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template("{msg:30} [{bar:30}] {bytes}/{total_bytes}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
