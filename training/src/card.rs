// SPDX-License-Identifier: MPL-2.0

//! Model card of a weights file, from its metadata and the configuration of its run.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::info::Info;
use crate::train::validate::{BY_SEQUENCE, FRAME_STEP, SCORE, SET};
use crate::train::{CONFIGURATION, TrainConfig};

/// Metadata keys that have their own place in the card.
const LISTED: [&str; 12] = [
    "format",
    "architecture",
    "licence",
    "training_data",
    "steps",
    CONFIGURATION,
    SCORE,
    "validation_j",
    "validation_f",
    BY_SEQUENCE,
    FRAME_STEP,
    SET,
];

/// Number format of quantised weights, as in the card.
pub const INT8: &str = "int8";

/// Returns the model card of the weights in `file`, which has `bytes` bytes in the number format `format`, in Markdown. `training` is the configuration
/// of the run, used if the metadata does not contain it. Missing values are given as "not stated".
pub fn card(file: &str, (bytes, format): (u64, &str), info: &Info, training: &TrainConfig) -> String {
    let metadata = &info.metadata;
    let stated = |key: &str| metadata.get(key).map_or("not stated".into(), |value| cell(value));
    let [height, width] = info.config.network_size;
    let [architecture, matching, temporal_skip] = info.names();
    let mut text = format!(
        "# {file}\n\n\
         Weights of the `{architecture}` regressor for the element `fastganseg`: {} parameters, {format}, {}.\n\n\
         | | |\n|---|---|\n\
         | task | input: the mask of an object in one frame; output: its soft mask in every later frame |\n\
         | network | `{architecture}`, matching {matching}, temporal skip {temporal_skip}, frames enter at \
         {height}x{width} (height x width) |\n",
        millions(info.total.parameters),
        size(bytes)
    );
    let mut row = |key: &str, value: &str| text += &format!("| {key} | {value} |\n");
    let memory = info.config.memory;
    if memory.frames > 0 {
        let (frames, every) = (memory.frames, memory.every);
        row("memory", &format!("{frames} frames besides the reference, one stored every {every} frames"));
    }
    let (frame, reference) = (info.total.frame / 1e9, info.total.reference as f64 / 1e9);
    row("cost", &format!("{frame:.2} GMAC per frame, {reference:.2} GMAC more for a new reference"));
    row("licence", &stated("licence"));
    row("data", &stated("training_data"));
    row("steps", &stated("steps"));
    row("seed", &seed(metadata, training));
    for (key, value) in metadata.iter().filter(|(key, _)| !LISTED.contains(&key.as_str())) {
        row(&cell(&key.replace('_', " ")), &cell(value));
    }
    text += &format!("\n## Scores\n\n{}\n", scores(metadata, [height, width], format).trim_end());
    text += "\n## Blocks\n\n| block | parameters | GMAC per frame |\n|---|---|---|\n";
    for block in info.blocks.iter().chain([&info.total]) {
        let (parameters, cost) = (thousands(block.parameters), block.frame / 1e9);
        text += &format!("| {} | {parameters} | {cost:.3} |\n", block.name);
    }
    let configured = || toml::to_string(training).unwrap_or_default();
    text + &format!(
        "\n## Procedure\n\nConfiguration of the run, for `fastganseg-train train --config`:\n\n```toml\n{}\n```\n\n\
         ## Limits\n\n\
         Masks are computed at {height}x{width} pixels and enlarged. Parts thinner than one pixel at that size are \
         lost. Adjacent objects that look like the object may be included in its mask. Objects unlike those of the \
         training data have not been tested.\n",
        metadata.get(CONFIGURATION).cloned().unwrap_or_else(configured).trim_end()
    )
}

/// Returns the seed of the run that made the weights. A configuration in their metadata takes precedence over `training`.
fn seed(metadata: &BTreeMap<String, String>, training: &TrainConfig) -> String {
    let Some(text) = metadata.get(CONFIGURATION) else { return training.seed.to_string() };
    let configured = toml::from_str::<toml::Table>(text).ok();
    configured.and_then(|table| Some(table.get("seed")?.to_string())).unwrap_or("not stated".into())
}

fn scores(metadata: &BTreeMap<String, String>, [height, width]: [i64; 2], format: &str) -> String {
    let value = |key: &str| metadata.get(key).and_then(|value| value.parse::<f64>().ok());
    let (Some(both), Some(region), Some(contour)) =
        (value(SCORE), value("validation_j"), value("validation_f"))
    else {
        return format!(
            "These weights were not validated during training at {height}x{width} pixels; `fastganseg-train eval` \
             scores them."
        );
    };
    let by_sequence: BTreeMap<String, [f64; 2]> =
        metadata.get(BY_SEQUENCE).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    let mut text = String::from(
        "Scores on the validation sequences of the run, computed as by the DAVIS 2017 tool, in per cent. If the \
         weights were selected by these scores, they are slightly optimistic.\n\n",
    );
    if format == INT8 {
        text += "They are those of the weights before they were reduced to int8.\n\n";
    }
    if let Some(step) = metadata.get(FRAME_STEP) {
        let _ = writeln!(text, "Only one frame in {step} was used, which is harder than using all frames.\n");
    }
    text += "| sequence | J&F | J | F |\n|---|---|---|---|\n";
    let mut row = |name: &str, [both, region, contour]: [f64; 3]| {
        let [both, region, contour] = [both, region, contour].map(|value| 100.0 * value);
        let _ = writeln!(text, "| {name} | {both:.1} | {region:.1} | {contour:.1} |");
    };
    for (name, [j, f]) in by_sequence {
        row(&cell(&name), [(j + f) / 2.0, j, f]);
    }
    row("all", [both, region, contour]);
    text
}

/// Escapes text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn millions(count: u64) -> String {
    if count >= 1_000_000 { format!("{:.2} M", count as f64 / 1e6) } else { thousands(count) }
}

fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn size(bytes: u64) -> String {
    if bytes >= 100_000 {
        format!("{:.1} MB", bytes as f64 / 1e6)
    } else {
        format!("{:.1} kB", bytes as f64 / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sizes_are_formatted() {
        assert_eq!(thousands(51_579_426), "51,579,426");
        assert_eq!((thousands(999), thousands(0)), ("999".into(), "0".into()));
        assert_eq!(millions(1_084_123), "1.08 M");
        assert_eq!((size(2_170_278), size(1_500)), ("2.2 MB".into(), "1.5 kB".into()));
        assert_eq!(cell("a|b\nc"), "a\\|b c");
    }
}
