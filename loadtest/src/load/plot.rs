//! A plot of times: for each kind, which part of the requests took at most how long.

use std::fmt::Write;

use super::{plan::Kind, report::times, send::Sent};
use crate::statistics::milliseconds;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 400.0;
const MARGIN: f64 = 60.0;
/// Powers of ten, in milliseconds, between which times are shown.
const DECADES: std::ops::RangeInclusive<i32> = -1..=5;
/// Parts that have a line of their own: the further down the tail, the more room it gets.
const TAIL: [(f64, &str); 5] = [
    (0.0, "0"),
    (1.0, "90 %"),
    (2.0, "99 %"),
    (3.0, "99.9 %"),
    (4.0, "99.99 %"),
];
const COLOURS: [&str; 4] = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd"];

/// The plot as SVG: parts of the requests from left to right, times from bottom to top, both logarithmic.
#[must_use]
pub(super) fn draw(sent: &[Sent]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" font-family=\"sans-serif\" \
         font-size=\"12\"><rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        WIDTH + 2.0 * MARGIN,
        HEIGHT + 2.0 * MARGIN
    );
    grid(&mut svg);
    let mut row = MARGIN + 20.0;
    for (kind, colour) in Kind::ALL.into_iter().zip(COLOURS) {
        let points = points(kind, sent);
        if points.is_empty() {
            continue;
        }
        add(
            &mut svg,
            format_args!(
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{points}\"/>\n"
            ),
        );
        add(
            &mut svg,
            format_args!(
                "<text x=\"{}\" y=\"{row}\" fill=\"{colour}\">{kind}</text>\n",
                MARGIN + 10.0
            ),
        );
        row += 16.0;
    }
    svg.push_str("</svg>\n");
    svg
}

fn grid(svg: &mut String) {
    for decade in DECADES {
        let y = height(10f64.powi(decade));
        let (left, right) = (MARGIN, MARGIN + WIDTH);
        add(
            svg,
            format_args!(
                "<line x1=\"{left}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{y:.1}\" text-anchor=\"end\">{} ms</text>\n",
                left - 4.0,
                10f64.powi(decade)
            ),
        );
    }
    for (nines, name) in TAIL {
        let x = MARGIN + nines / 4.0 * WIDTH;
        let bottom = MARGIN + HEIGHT;
        add(
            svg,
            format_args!(
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{MARGIN}\" y2=\"{bottom}\" stroke=\"#ddd\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{name}</text>\n",
                bottom + 16.0
            ),
        );
    }
}

/// The times of a kind as points of a line; at most a thousand say all that can be seen.
fn points(kind: Kind, sent: &[Sent]) -> String {
    let times = times(Some(kind), sent);
    let count = times.len() as f64;
    let step = (times.len() / 1000).max(1);
    let chosen = times.iter().enumerate().filter(|(place, _)| {
        // The tail is shown whole.
        place % step == 0 || times.len() - place <= 100
    });
    let points = chosen.map(|(place, time)| {
        let slower = (count - place as f64) / count;
        let x = MARGIN + (-slower.log10() / 4.0).clamp(0.0, 1.0) * WIDTH;
        format!("{x:.1},{:.1}", height(milliseconds(*time)))
    });
    points.collect::<Vec<_>>().join(" ")
}

fn height(time_ms: f64) -> f64 {
    let (low, high) = (f64::from(*DECADES.start()), f64::from(*DECADES.end()));
    let part = (time_ms.max(1e-3).log10() - low) / (high - low);
    MARGIN + (1.0 - part.clamp(0.0, 1.0)) * HEIGHT
}

fn add(svg: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing into a text cannot fail.
    svg.write_fmt(what).ok();
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_kind_that_succeeded_has_a_line() {
        let sent = |kind, outcome| Sent {
            kind,
            due: Duration::ZERO,
            late: Duration::ZERO,
            outcome,
        };
        let mut all: Vec<_> = (1..5000)
            .map(|time| sent(Kind::Warm, Ok(Duration::from_millis(time))))
            .collect();
        all.push(sent(Kind::New, Err("Busy".to_owned())));
        let svg = draw(&all);
        assert_eq!(svg.matches("<polyline").count(), 1);
        assert!(svg.len() < 50_000, "{}", svg.len());
        assert!(svg.contains(">warm</text>") && !svg.contains(">new</text>"));
    }

    #[test]
    fn slow_is_up_and_what_is_off_the_scale_stays_in_the_picture() {
        assert!(height(10.0) < height(1.0));
        assert_eq!(height(0.0), MARGIN + HEIGHT);
        assert_eq!(height(1e9), MARGIN);
    }
}
