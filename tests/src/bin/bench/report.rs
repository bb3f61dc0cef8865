//! The figures: medians of interleaved runs, a table, and target/bench.json.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value, json};

/// What the ratio of ours to the reference may be (design, "Budgets").
#[derive(Debug, Clone, Copy)]
pub(crate) enum Budget {
    /// At most this: times and bytes.
    AtMost(f64),
    /// At least this: rates.
    AtLeast(f64),
    /// Reported only.
    None,
}

/// One line of the table.
#[derive(Debug)]
struct Line {
    case: String,
    ours: f64,
    reference: f64,
    beside: String,
    unit: &'static str,
    budget: Budget,
    runs: usize,
}

/// All lines so far.
#[derive(Debug)]
pub(crate) struct Report {
    lines: Vec<Line>,
    /// Whether one of the processors is busy with something else.
    pub(crate) loaded: bool,
}

/// The runs of one case: pairs of ours and the reference.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    ours: Vec<f64>,
    reference: Vec<f64>,
}

impl Runs {
    /// Runs both in turn, so that what else the machine does meets both.
    pub(crate) fn interleaved(
        count: usize,
        mut ours: impl FnMut() -> f64,
        mut reference: impl FnMut() -> f64,
    ) -> Self {
        let mut runs = Self::default();
        for _ in 0..count {
            runs.ours.push(ours());
            runs.reference.push(reference());
        }
        runs
    }

    /// All figures times `factor`.
    pub(crate) fn scaled(&self, factor: f64) -> Self {
        let each = |all: &[f64]| all.iter().map(|one| one * factor).collect();
        Self {
            ours: each(&self.ours),
            reference: each(&self.reference),
        }
    }

    /// So much of the median of ours.
    pub(crate) fn pieces(&self, share: f64) -> f64 {
        median(&self.ours) * share
    }

    /// One run of each.
    pub(crate) fn add(&mut self, ours: f64, reference: f64) {
        self.ours.push(ours);
        self.reference.push(reference);
    }
}

impl Report {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self {
            lines: Vec::new(),
            loaded: false,
        }
    }

    /// What a transfer may take beside its reference, as the machine is now.
    pub(crate) const fn transfer_budget(&self) -> Budget {
        Budget::AtMost(if self.loaded { 1.6 } else { 1.3 })
    }

    /// Takes the medians of the runs of a case. `beside` says what the reference is.
    pub(crate) fn add(
        &mut self,
        case: &str,
        runs: &Runs,
        beside: &str,
        unit: &'static str,
        budget: Budget,
    ) {
        let line = Line {
            case: format!("{case}{}", if self.loaded { "-loaded" } else { "" }),
            ours: median(&runs.ours),
            reference: median(&runs.reference),
            beside: beside.to_owned(),
            unit,
            budget,
            runs: runs.ours.len(),
        };
        eprintln!("       {}", line.text());
        self.lines.push(line);
    }

    /// The table on the terminal.
    pub(crate) fn print(&self) {
        println!("{}", Line::head());
        for line in &self.lines {
            println!("{}", line.text());
        }
    }

    /// The same for programs, in target/bench.json: lines of cases that were not run now are kept.
    pub(crate) fn write(&self) -> PathBuf {
        let executable = std::env::current_exe().unwrap();
        let target = executable
            .ancestors()
            .nth(2)
            .expect("target/dist/bench")
            .to_owned();
        let path = target.join("bench.json");
        let old: Vec<Value> = std::fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let kept = old
            .into_iter()
            .filter(|value| !self.lines.iter().any(|line| value["case"] == line.case));
        let lines: Vec<Value> = kept.chain(self.lines.iter().map(Line::json)).collect();
        let text = serde_json::to_vec_pretty(&lines).unwrap();
        File::create(&path)
            .and_then(|mut file| file.write_all(&text))
            .unwrap();
        path
    }
}

impl Line {
    fn ratio(&self) -> f64 {
        self.ours / self.reference
    }

    fn verdict(&self) -> &'static str {
        match self.budget {
            Budget::AtMost(most) if self.ratio() <= most => "ok",
            Budget::AtLeast(least) if self.ratio() >= least => "ok",
            Budget::None => "",
            Budget::AtMost(_) | Budget::AtLeast(_) => "OVER",
        }
    }

    fn head() -> String {
        let (case, beside) = ("case", "reference");
        format!(
            "{case:36} {:>10} {:>10} {:5} {:>6} {:>7} {:4} {:>4}  {beside}",
            "ours", "ref.", "unit", "ratio", "budget", "", "runs"
        )
    }

    fn text(&self) -> String {
        let budget = match self.budget {
            Budget::AtMost(most) => format!("≤ {most:.2}"),
            Budget::AtLeast(least) => format!("≥ {least:.2}"),
            Budget::None => "-".to_owned(),
        };
        format!(
            "{:36} {:>10.2} {:>10.2} {:5} {:>6.2} {budget:>7} {:4} {:>4}  {}",
            self.case,
            self.ours,
            self.reference,
            self.unit,
            self.ratio(),
            self.verdict(),
            self.runs,
            self.beside
        )
    }

    fn json(&self) -> Value {
        let budget = match self.budget {
            Budget::AtMost(most) => json!({ "at_most": most }),
            Budget::AtLeast(least) => json!({ "at_least": least }),
            Budget::None => Value::Null,
        };
        json!({
            "case": self.case,
            "ours": self.ours,
            "reference": self.reference,
            "unit": self.unit,
            "ratio": self.ratio(),
            "budget": budget,
            "runs": self.runs,
            "beside": self.beside,
        })
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
