//! The table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What is measured, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    FirstByteP50,
    FirstByteP99,
    Closed1,
    Closed32,
    ToEnd32,
    Down1,
    Down8,
    Down64,
    Up1,
    CpuDown,
    CpuUp,
    MemoryIdle,
    MemoryLoad,
}

impl Figure {
    fn title(self) -> &'static str {
        match self {
            Self::FirstByteP50 => "first byte of a new connection, p50, ms",
            Self::FirstByteP99 => "first byte of a new connection, p99, ms",
            Self::Closed1 => "new connection per request, 1 at a time, per s",
            Self::Closed32 => "new connection per request, 32 at a time, per s",
            Self::ToEnd32 => "the same, waiting for the pod's end of file, per s",
            Self::Down1 => "download, 1 stream, MB/s",
            Self::Down8 => "download, 8 streams, MB/s",
            Self::Down64 => "download, 64 streams, MB/s",
            Self::Up1 => "upload, 1 stream, MB/s",
            Self::CpuDown => "CPU of the process per GiB down, s",
            Self::CpuUp => "CPU of the process per GiB up, s",
            Self::MemoryIdle => "resident memory, idle, MiB",
            Self::MemoryLoad => "resident memory after 64 streams, MiB",
        }
    }
}

/// One way's figures, a value per round.
pub(crate) struct Column {
    name: &'static str,
    values: BTreeMap<Figure, Vec<f64>>,
}

impl Column {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            values: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, figure: Figure, value: f64) {
        self.values.entry(figure).or_default().push(value);
    }

    fn median(&self, figure: Figure) -> Option<f64> {
        let mut values = self.values.get(&figure)?.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }
}

/// A Markdown table; each column but the first has its ratio to the first.
pub(crate) fn table(columns: &[Column]) -> String {
    let mut out = String::from("| |");
    for column in columns {
        let _ = write!(out, " {} |", column.name);
    }
    out.push_str("\n|---|");
    out.push_str(&"---:|".repeat(columns.len()));
    let base = &columns[0];
    for figure in base.values.keys() {
        let _ = write!(out, "\n| {} |", figure.title());
        for (i, column) in columns.iter().enumerate() {
            let cell = match (column.median(*figure), base.median(*figure)) {
                (None, _) => "".to_owned(),
                (Some(value), Some(base)) if i > 0 => {
                    format!("{} ({:.2})", round(value), value / base)
                }
                (Some(value), _) => round(value),
            };
            let _ = write!(out, " {cell} |");
        }
    }
    out
}

fn round(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}
