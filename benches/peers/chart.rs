//! The table as a picture.

use std::fmt::Write;

use crate::Row;

const FILE: &str = "docs/performance.svg";
const COLOURS: [&str; 5] = ["#2a9d8f", "#95d0c8", "#8d99ae", "#c9ada7", "#e9c46a"];
const LEFT: f64 = 110.0;
/// Pixels of a ratio of one.
const ONE: f64 = 220.0;
/// What is longer is cut off, and says so.
const LONGEST: f64 = 2.2;
const BAR: f64 = 9.0;

/// Draws the ratios as bars beside the line that stands for nginx.
pub fn write(peers: &[&str], rows: &[Row], versions: &str) {
    let of_row = BAR * peers.len() as f64 + 12.0;
    let top = 56.0;
    let bottom = top + of_row * rows.len() as f64;
    let (width, height) = (LEFT + ONE * LONGEST + 70.0, bottom + 30.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"8\" y=\"16\" font-size=\"13\">CPU per request, plain nginx = 1 (less is better)</text>\n"
    );
    for (number, peer) in peers.iter().enumerate() {
        let x = 8.0 + 132.0 * number as f64;
        let colour = COLOURS[number % COLOURS.len()];
        writeln!(svg, "<rect x=\"{x}\" y=\"27\" width=\"9\" height=\"9\" fill=\"{colour}\"/>").unwrap();
        writeln!(svg, "<text x=\"{}\" y=\"36\">{peer}</text>", x + 13.0).unwrap();
    }
    for (number, row) in rows.iter().enumerate() {
        let y = top + of_row * number as f64;
        let middle = y + BAR * peers.len() as f64 / 2.0 + 4.0;
        writeln!(svg, "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{}</text>", LEFT - 8.0, row.name).unwrap();
        for (number, ratio) in row.ratios.iter().enumerate() {
            let (y, long) = (y + BAR * number as f64, ratio.median.min(LONGEST) * ONE);
            let colour = COLOURS[number % COLOURS.len()];
            let value = if ratio.median > LONGEST { "… " } else { "" };
            writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{long:.1}\" height=\"{}\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{}\" font-size=\"9\">{value}{:.2}</text>",
                BAR - 1.0,
                LEFT + long + 4.0,
                y + 7.5,
                ratio.median,
            )
            .unwrap();
        }
    }
    let nginx = LEFT + ONE;
    writeln!(
        svg,
        "<line x1=\"{nginx}\" y1=\"{}\" x2=\"{nginx}\" y2=\"{bottom}\" stroke=\"#444\" stroke-dasharray=\"3 3\"/>",
        top - 6.0
    )
    .unwrap();
    writeln!(svg, "<text x=\"8\" y=\"{}\" font-size=\"9\">{versions}</text>\n</svg>", bottom + 20.0).unwrap();
    std::fs::write(FILE, svg).unwrap();
    println!("\nchart: {FILE}");
}
