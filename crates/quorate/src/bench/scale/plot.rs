//! Lines with axes, as SVG that can be read on light and on dark pages. Not a chart library: no legend outside, no bars.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 48.0;
const TICKS: f64 = 6.0;
/// Told apart on white and on black, and by those who see red as green.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8a8a8a"];
const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#333}.title{font-weight:600;font-size:14px}\
.grid{stroke:#8886;stroke-width:.5}.axis{stroke:#888}polyline{fill:none;stroke-width:1.8}\
@media(prefers-color-scheme:dark){text{fill:#ccc}}";

#[derive(Debug, Clone)]
pub struct Plot {
    pub title: String,
    pub x_label: String,
    pub y_label: String,
    /// Each step of the axis multiplies; x must then be above 0.
    pub x_log: bool,
    pub series: Vec<Series>,
}

#[derive(Debug, Clone)]
pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// One axis: from which value to which, at which pixels.
#[derive(Debug, Clone, Copy)]
struct Scale {
    from: f64,
    to: f64,
    at: (f64, f64),
    log: bool,
}

impl Scale {
    fn place(self, value: f64) -> f64 {
        let bend = |value: f64| if self.log { value.max(f64::MIN_POSITIVE).ln() } else { value };
        let span = bend(self.to) - bend(self.from);
        let share = if span.abs() < f64::EPSILON { 0.5 } else { (bend(value) - bend(self.from)) / span };
        self.at.0 + share * (self.at.1 - self.at.0)
    }
}

impl Plot {
    pub fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let (x_min, x_max) = bounds(points().map(|point| point.0));
        let y_step = step(bounds(points().map(|point| point.1)).1);
        let y_max = y_step * (bounds(points().map(|point| point.1)).1 / y_step).ceil().max(1.0);
        let x = Scale { from: x_min, to: x_max, at: (LEFT, WIDTH - RIGHT), log: self.x_log };
        // From zero: a line that looks steep is steep.
        let y = Scale { from: 0.0, to: y_max, at: (HEIGHT - BOTTOM, TOP), log: false };
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\
             <title>{title}</title><style>{STYLE}</style>\n<text class=\"title\" x=\"{LEFT}\" y=\"20\">{title}</text>\n",
            title = escaped(&self.title),
        );
        self.axes(&mut svg, x, y, y_step);
        let mut at = LEFT;
        for (series, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            let line: Vec<String> =
                series.points.iter().map(|(a, b)| format!("{:.1},{:.1}", x.place(*a), y.place(*b))).collect();
            // Writing to a String does not fail.
            let _ = writeln!(svg, "<polyline stroke=\"{colour}\" points=\"{}\"/>", line.join(" "));
            let _ = writeln!(
                svg,
                "<rect x=\"{at:.0}\" y=\"34\" width=\"12\" height=\"4\" fill=\"{colour}\"/>\
                 <text x=\"{:.0}\" y=\"40\">{}</text>",
                at + 16.0,
                escaped(&series.name),
            );
            at += 34.0 + 6.6 * series.name.chars().count() as f64;
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn axes(&self, svg: &mut String, x: Scale, y: Scale, y_step: f64) {
        let bottom = HEIGHT - BOTTOM;
        let mut value = 0.0;
        while value <= y.to + y_step / 2.0 {
            let at = y.place(value);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{}\" y2=\"{at:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                short(value),
            );
            value += y_step;
        }
        for value in self.x_ticks(x) {
            let at = x.place(value);
            let _ = writeln!(
                svg,
                "<line class=\"axis\" x1=\"{at:.1}\" y1=\"{bottom}\" x2=\"{at:.1}\" y2=\"{}\"/>\
                 <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                bottom + 4.0,
                bottom + 17.0,
                short(value),
            );
        }
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{bottom}\" x2=\"{}\" y2=\"{bottom}\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text><text x=\"{LEFT}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            WIDTH - RIGHT,
            WIDTH - RIGHT,
            HEIGHT - 10.0,
            escaped(&self.x_label),
            TOP - 10.0,
            escaped(&self.y_label),
        );
    }

    /// What was measured, where steps multiply; round numbers otherwise.
    fn x_ticks(&self, x: Scale) -> Vec<f64> {
        if self.x_log {
            let mut ticks: Vec<f64> =
                self.series.iter().flat_map(|series| series.points.iter().map(|point| point.0)).collect();
            ticks.sort_by(f64::total_cmp);
            ticks.dedup();
            return ticks;
        }
        let step = step(x.to - x.from);
        let first = (x.from / step).ceil();
        (0..12).map(|number| (first + f64::from(number)) * step).take_while(|value| *value <= x.to).collect()
    }
}

/// 1, 2 or 5 times a power of ten, so that a few of them reach the end.
fn step(end: f64) -> f64 {
    if !(end.is_finite() && end > 0.0) {
        return 1.0;
    }
    let rough = end / TICKS;
    let power = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough).unwrap_or(10.0);
    factor * power
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let found = values.fold(None, |found: Option<(f64, f64)>, value| {
        Some(found.map_or((value, value), |(least, most)| (least.min(value), most.max(value))))
    });
    found.unwrap_or((0.0, 1.0))
}

/// `1.5M`, `20k`, `300`, `0.25`.
fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = format!("{value:.2}");
    format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.'))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, f64)>, x_log: bool) -> String {
        let series = vec![Series { name: "a < b".to_owned(), points }];
        let text = |text: &str| text.to_owned();
        Plot { title: text("t"), x_label: text("x"), y_label: text("y"), x_log, series }.svg()
    }

    #[test]
    fn lines_go_from_corner_to_corner() {
        let svg = plot(vec![(0.0, 0.0), (10.0, 6.0)], false);
        assert!(svg.contains("points=\"70.0,312.0 740.0,64.0\""), "{svg}");
        assert!(svg.contains("a &lt; b"), "{svg}");
        let svg = plot(vec![(1.0, 6.0), (8.0, 6.0), (64.0, 0.0)], true);
        assert!(svg.contains("points=\"70.0,64.0 405.0,64.0 740.0,312.0\""), "{svg}");
    }

    #[test]
    fn nothing_and_one_point_are_drawn_too() {
        for points in [vec![], vec![(5.0, 5.0)], vec![(0.0, 0.0)]] {
            let svg = plot(points, false);
            assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn steps_are_round() {
        for (end, wanted) in [(6.0, 1.0), (7.0, 2.0), (100.0, 20.0), (250_000.0, 50_000.0), (0.0, 1.0)] {
            assert!((step(end) - wanted).abs() < wanted * 1e-9, "{end}: {}", step(end));
        }
        for (value, wanted) in [(0.0, "0"), (0.25, "0.25"), (20_000.0, "20k"), (1.5e6, "1.5M"), (64.0, "64")]
        {
            assert_eq!(short(value), wanted);
        }
    }
}
