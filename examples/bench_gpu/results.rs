// SPDX-License-Identifier: MPL-2.0

//! Writes results as they arrive: to the terminal, as CSV, and as JSON with one object per line.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

pub struct Results {
    csv: File,
    json: File,
}

/// Identifies a result.
pub struct Line<'a> {
    pub what: &'a str,
    pub model: &'a str,
    pub precision: String,
    pub way: &'a str,
    pub detail: String,
}

impl Results {
    pub fn create(folder: &Path) -> std::io::Result<Self> {
        let mut csv = File::create(folder.join("results.csv"))?;
        writeln!(csv, "what,model,precision,way,detail,p50 ms,p99 ms,per second,note")?;
        println!(
            "{:<9} {:<9} {:<9} {:<6} {:<22} {:>8} {:>8} {:>9}  note",
            "what", "model", "precision", "way", "detail", "p50 ms", "p99 ms", "per s"
        );
        Ok(Self { csv, json: File::create(folder.join("results.json"))? })
    }

    /// Writes median, 99th percentile and rate of single runs.
    pub fn times(&mut self, line: &Line, times: &[Duration], note: &str) -> std::io::Result<()> {
        let mut ms: Vec<f64> = times.iter().map(|time| 1e3 * time.as_secs_f64()).collect();
        ms.sort_by(f64::total_cmp);
        let at = |share: f64| {
            ms.get(((ms.len() as f64 * share) as usize).min(ms.len().saturating_sub(1))).copied()
        };
        let (Some(median), Some(late)) = (at(0.5), at(0.99)) else { return Ok(()) };
        let rate = 1e3 * ms.len() as f64 / ms.iter().sum::<f64>();
        self.write(line, Some((median, late, rate)), note)
    }

    /// Writes a result without times.
    pub fn note(&mut self, line: &Line, note: &str) -> std::io::Result<()> {
        self.write(line, None, note)
    }

    fn write(&mut self, line: &Line, times: Option<(f64, f64, f64)>, note: &str) -> std::io::Result<()> {
        let Line { what, model, precision, way, detail } = line;
        let [a, b, c] = match times {
            Some((a, b, c)) => [format!("{a:.3}"), format!("{b:.3}"), format!("{c:.1}")],
            None => Default::default(),
        };
        println!("{what:<9} {model:<9} {precision:<9} {way:<6} {detail:<22} {a:>8} {b:>8} {c:>9}  {note}");
        writeln!(
            self.csv,
            "{what},{model},{precision},{way},{detail},{a},{b},{c},\"{}\"",
            note.replace('"', "'")
        )?;
        let (median, late, rate) = times.unzip3();
        let object = serde_json::json!({
            "what": what, "model": model, "precision": precision, "way": way, "detail": detail,
            "p50_ms": median, "p99_ms": late, "per_second": rate, "note": note,
        });
        writeln!(self.json, "{object}")?;
        std::io::stdout().flush()
    }
}

trait Unzip3 {
    fn unzip3(self) -> (Option<f64>, Option<f64>, Option<f64>);
}

impl Unzip3 for Option<(f64, f64, f64)> {
    fn unzip3(self) -> (Option<f64>, Option<f64>, Option<f64>) {
        (self.map(|all| all.0), self.map(|all| all.1), self.map(|all| all.2))
    }
}
