//! A picture of latency against burned CPU, as SVG, made with nothing but text.

use std::fmt::Write;

/// One policy under one workload.
#[derive(Clone, Debug)]
pub struct Point {
    /// CPU time burned while idle, as a share of idle time, 0 to 1.
    pub burned: f64,
    /// Wake-up latency in microseconds.
    pub latency_us: f64,
    /// What to write beside it.
    pub label: String,
}

/// The points of one workload, joined by a line.
#[derive(Clone, Debug)]
pub struct Series {
    /// The workload.
    pub name: String,
    /// Its points, in the order of the policies.
    pub points: Vec<Point>,
}

const WIDTH: f64 = 860.0;
const PANEL: f64 = 250.0;
const LEFT: f64 = 90.0;
const TOP: f64 = 60.0;
const GAP: f64 = 60.0;
const COLOURS: [&str; 5] = ["#1b6ca8", "#c8553d", "#3b7a57", "#7a4e9f", "#8a6d1f"];

/// One panel below the other, one per workload: burned CPU to the right, latency upwards, both
/// from zero. Better is left and down.
pub fn svg(title: &str, series: &[Series]) -> String {
    let height = TOP + series.len() as f64 * (PANEL + GAP);
    let mut out = String::new();
    let _ = writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="{LEFT}" y="28" font-size="16">{title}</text>"##
    );
    for (index, one) in series.iter().enumerate() {
        let top = TOP + index as f64 * (PANEL + GAP);
        panel(&mut out, one, top, COLOURS[index % COLOURS.len()]);
    }
    out.push_str("</svg>\n");
    out
}

fn panel(out: &mut String, series: &Series, top: f64, colour: &str) {
    let width = WIDTH - LEFT - 160.0;
    let bottom = top + PANEL - 30.0;
    let highest = series.points.iter().map(|p| p.latency_us).fold(1.0, f64::max) * 1.1;
    let x = |burned: f64| LEFT + burned.min(1.0) * width;
    let y = |latency: f64| bottom - latency / highest * (PANEL - 50.0);
    let _ =
        writeln!(out, r##"<text x="{LEFT}" y="{:.1}" fill="{colour}">{}</text>"##, top + 10.0, series.name);
    for tick in 0..=4 {
        let (share, level) = (f64::from(tick) / 4.0, highest * f64::from(tick) / 4.0);
        let _ = writeln!(
            out,
            r##"<line x1="{0:.1}" y1="{bottom:.1}" x2="{0:.1}" y2="{1:.1}" stroke="#e4e4e4"/><text x="{0:.1}" y="{2:.1}" text-anchor="middle" fill="#666666">{3:.0} %</text>
<text x="{4:.1}" y="{5:.1}" text-anchor="end" fill="#666666">{level:.1} us</text>"##,
            x(share),
            top + 20.0,
            bottom + 18.0,
            share * 100.0,
            LEFT - 8.0,
            y(level) + 4.0
        );
    }
    let _ = writeln!(
        out,
        r##"<line x1="{LEFT}" y1="{bottom:.1}" x2="{:.1}" y2="{bottom:.1}" stroke="#888888"/><line x1="{LEFT}" y1="{:.1}" x2="{LEFT}" y2="{bottom:.1}" stroke="#888888"/>"##,
        x(1.0),
        top + 20.0
    );
    let line: Vec<String> =
        series.points.iter().map(|p| format!("{:.1},{:.1}", x(p.burned), y(p.latency_us))).collect();
    let _ = writeln!(
        out,
        r##"<polyline points="{}" fill="none" stroke="{colour}" stroke-opacity="0.35"/>"##,
        line.join(" ")
    );
    for (index, point) in series.points.iter().enumerate() {
        let (cx, cy) = (x(point.burned), y(point.latency_us));
        let lift = if index % 2 == 0 { -8.0 } else { 16.0 };
        let _ = writeln!(
            out,
            r##"<circle cx="{cx:.1}" cy="{cy:.1}" r="4" fill="{colour}"/><text x="{:.1}" y="{:.1}" font-size="11">{}</text>"##,
            cx + 6.0,
            cy + lift,
            point.label
        );
    }
}
