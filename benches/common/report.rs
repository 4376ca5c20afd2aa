//! The table.

use std::fmt::Write as _;

/// One way's figures, a value per round, in the order in which they first came.
pub(crate) struct Column {
    name: &'static str,
    pub(crate) values: Vec<(String, Vec<f64>)>,
}

impl Column {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            values: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, figure: &str, value: f64) {
        match self.values.iter_mut().find(|(f, _)| f == figure) {
            Some((_, values)) => values.push(value),
            None => self.values.push((figure.to_owned(), vec![value])),
        }
    }

    /// The median over the rounds.
    pub(crate) fn median(&self, figure: &str) -> Option<f64> {
        let (_, values) = self.values.iter().find(|(f, _)| f == figure)?;
        let mut values = values.clone();
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
    let mut figures: Vec<&str> = Vec::new();
    for (figure, _) in columns.iter().flat_map(|column| &column.values) {
        if !figures.contains(&&**figure) {
            figures.push(figure);
        }
    }
    for figure in figures {
        let _ = write!(out, "\n| {figure} |");
        for (i, column) in columns.iter().enumerate() {
            let cell = match (column.median(figure), base.median(figure)) {
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
