// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The boot stages as a plot, `vmm/docs/boot-stages.svg`, and as the table that goes with it: one bar for this machine's KVM and
//! one for the nested runner's, each as far as it was measured (`boot-stages.json` in `target` and in `target/nested/out`).

use super::boot::{self, Boot};
use super::product::Product;
use super::unit::{Unit, median, processors};
use crate::repository::root;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

const DOCUMENT: &str = "boot-stages.json";
const PLOT: &str = "vmm/docs/boot-stages.svg";

/// What each stage of the result document ends, and the colour of its bar.
const STAGES: [(&str, &str, &str); 7] = [
    ("parsed", "parse the command line", "#9e9e9e"),
    ("image_ready", "find the root disk", "#4c72b0"),
    ("machine_built", "build the machine", "#55a868"),
    ("first_instruction", "start the vCPU", "#937860"),
    ("init_started", "guest kernel", "#dd8452"),
    ("workload_executed", "PID 1", "#8172b3"),
    ("first_byte", "workload, to its first byte", "#c44e52"),
];

/// `cargo xtask bench stages`: measures the boot alone, and draws it.
pub(super) fn run(rounds: usize) -> Result<ExitCode> {
    let product = Product::find()?;
    let boots = boot::measure(&product, rounds)?;
    write(&product, &boots, &super::out_directory())?;
    draw()?;
    Ok(ExitCode::SUCCESS)
}

/// Keeps the medians of `boots` in `directory`.
pub(super) fn write(product: &Product, boots: &[Boot], directory: &Path) -> Result<()> {
    let first_bytes: Vec<u64> = boots.iter().map(|boot| boot.first_byte_us).collect();
    let stages = boot::stages(boots).into_iter().chain([("first_byte".to_owned(), first_bytes)]);
    let stages: serde_json::Map<String, Value> =
        stages.map(|(name, samples)| (name, median(&samples).into())).collect();
    let kvm = if product.emulated() { "KVM that emulates guest kernel mode" } else { "native KVM" };
    let document =
        json!({ "version": 1, "host": format!("{kvm}, {}", processors()), "runs": boots.len(), "stages": stages });
    let path = directory.join(DOCUMENT);
    fs::write(&path, format!("{document:#}\n")).with_context(|| path.display().to_string())
}

/// Draws what has been measured, and prints the table. Inside the nested runner there is nowhere to draw to.
pub(super) fn draw() -> Result<()> {
    let mut worlds = Vec::new();
    for directory in ["target", "target/nested/out"] {
        if let Ok(text) = fs::read_to_string(root().join(directory).join(DOCUMENT)) {
            worlds.push(World::read(&text).with_context(|| format!("{directory}/{DOCUMENT}"))?);
        }
    }
    if worlds.is_empty() || !root().join("vmm/docs").is_dir() {
        return Ok(());
    }
    println!("{}", table(&worlds));
    fs::write(root().join(PLOT), plot(&worlds)).context(PLOT)?;
    eprintln!("drawn: {PLOT}");
    Ok(())
}

/// One machine that was measured.
#[derive(Debug, PartialEq)]
struct World {
    host: String,
    /// When each of [`STAGES`] was reached, in microseconds since the start of the process.
    ends: [u64; STAGES.len()],
}

impl World {
    fn read(text: &str) -> Result<World> {
        let document: Value = serde_json::from_str(text)?;
        let host = document["host"].as_str().context("no host")?;
        let runs = document["runs"].as_u64().context("no runs")?;
        let mut ends = [0; STAGES.len()];
        for (end, (name, ..)) in ends.iter_mut().zip(STAGES) {
            *end = document["stages"][name].as_u64().with_context(|| format!("no stage {name}"))?;
        }
        // The clock of the first byte starts before the process's own, by a fork and an exec.
        for index in 1..ends.len() {
            ends[index] = ends[index].max(ends[index - 1]);
        }
        Ok(World { host: format!("{host} (medians of {runs} runs)"), ends })
    }

    fn took(&self, stage: usize) -> u64 {
        self.ends[stage] - stage.checked_sub(1).map_or(0, |before| self.ends[before])
    }
}

fn table(worlds: &[World]) -> String {
    let mut text = "| stage |".to_owned();
    text.extend(worlds.iter().map(|world| format!(" {} |", world.host)));
    let _ = writeln!(text, "\n|---|{}", "---|".repeat(worlds.len()));
    let mut row = |name: &str, time: &dyn Fn(&World) -> u64| {
        let _ = write!(text, "| {name} |");
        text.extend(worlds.iter().map(|world| format!(" {} |", Unit::Microseconds.show(time(world)))));
        text.push('\n');
    };
    for (stage, (_, name, _)) in STAGES.iter().enumerate() {
        row(name, &|world| world.took(stage));
    }
    row("process start to first byte", &|world| world.ends[STAGES.len() - 1]);
    text
}

const WIDTH: f64 = 760.0;
const MARGIN: f64 = 16.0;
const BAR_HEIGHT: f64 = 28.0;
/// From one bar to the next: its title is above it.
const ROW_HEIGHT: f64 = 64.0;
const LEGEND_ROW: f64 = 20.0;
const LEGEND_COLUMNS: usize = 3;
/// A label needs so much of its bar.
const LABEL_WIDTH: f64 = 70.0;

fn plot(worlds: &[World]) -> String {
    let longest = worlds.iter().map(|world| world.ends[STAGES.len() - 1]).max().unwrap_or(1).max(1) as f64;
    let inner = WIDTH - 2.0 * MARGIN;
    let x = |time: u64| MARGIN + time as f64 / longest * inner;
    let bars = ROW_HEIGHT * worlds.len() as f64;
    let height = bars + LEGEND_ROW * (STAGES.len().div_ceil(LEGEND_COLUMNS) as f64 + 1.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <!-- SPDX-License-Identifier: Apache-2.0 OR MIT. Drawn by `cargo xtask bench`. -->\n\
         <title>Stages of a boot, from the start of the process to the first byte of `echo x`</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for (row, world) in worlds.iter().enumerate() {
        let top = ROW_HEIGHT * row as f64 + MARGIN;
        let total = Unit::Microseconds.show(world.ends[STAGES.len() - 1]);
        text(&mut svg, MARGIN, top + 4.0, "start", &format!("{}: {total}", world.host));
        for (stage, (_, name, colour)) in STAGES.iter().enumerate() {
            let end = x(world.ends[stage]);
            let start = end - world.took(stage) as f64 / longest * inner;
            let took = Unit::Microseconds.show(world.took(stage));
            let _ = writeln!(
                svg,
                "<rect x=\"{start:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BAR_HEIGHT}\" fill=\"{colour}\"><title>{name}: {took}</title></rect>",
                top + 12.0,
                end - start
            );
            if end - start >= LABEL_WIDTH {
                text(&mut svg, f64::midpoint(start, end), top + 31.0, "middle", &took);
            }
        }
    }
    for (stage, (_, name, colour)) in STAGES.iter().enumerate() {
        let left = MARGIN + inner / LEGEND_COLUMNS as f64 * (stage % LEGEND_COLUMNS) as f64;
        let top = bars + LEGEND_ROW * (stage / LEGEND_COLUMNS) as f64 + MARGIN;
        let _ = writeln!(
            svg,
            "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>",
            top - 9.0
        );
        text(&mut svg, left + 16.0, top, "start", name);
    }
    svg + "</svg>\n"
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, content: &str) {
    let content = content.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{content}</text>");
}

#[cfg(test)]
mod tests {
    use super::{World, plot, table};

    const DOCUMENT: &str = r#"{"version": 1, "host": "KVM on a <processor>", "runs": 3, "stages": {"parsed": 400,
        "image_ready": 700, "machine_built": 35000, "first_instruction": 35100, "init_started": 6535100,
        "workload_executed": 8000000, "first_byte": 8500000}}"#;

    #[test]
    fn stages_take_the_time_since_the_one_before() {
        let world = World::read(DOCUMENT).unwrap();
        assert_eq!((world.took(0), world.took(1), world.took(6)), (400, 300, 500_000));
        let text = table(&[world]);
        assert!(text.contains("| guest kernel | 6500.0 ms |\n") && text.ends_with("| 8500.0 ms |\n"), "{text}");
    }

    #[test]
    fn document_without_a_stage_is_an_error() {
        assert!(World::read(&DOCUMENT.replace("init_started", "other")).is_err());
    }

    #[test]
    fn bars_fill_the_width_and_text_is_escaped() {
        let svg = plot(&[World::read(DOCUMENT).unwrap()]);
        assert!(svg.contains("KVM on a &lt;processor> (medians of 3 runs): 8500.0 ms"), "{svg}");
        // 6500 of 8500 ms of 728 units.
        assert!(svg.contains("width=\"556.7\" height=\"28\" fill=\"#dd8452\""), "{svg}");
        assert_eq!(svg.matches("<rect ").count(), 1 + 7 + 7, "{svg}");
    }
}
