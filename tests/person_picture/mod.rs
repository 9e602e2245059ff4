// SPDX-License-Identifier: MPL-2.0

//! A picture of 256x144 pixels in which the person network finds somebody, as `picture` in `scripts/convert_person.py`.

/// Colour at (`column`, `y`) of a head and shoulders on a gradient, `shift` pixels to the right.
pub fn pixel(column: i64, y: i64, shift: i64) -> [u8; 3] {
    let x = column - shift;
    let ellipse = |u: i64, v: i64, across: i64, down: i64, radius: i64| {
        (x - u).pow(2) * across + (y - v).pow(2) * down < radius.pow(2)
    };
    let eye = |u: i64| (x - u).pow(2) + (y - 56).pow(2) < 6;
    let head = ellipse(120, 58, 16, 9, 96);
    let pixel = if (x - 120).abs() < 7 && (y - 74).abs() < 2 {
        [160, 70, 70]
    } else if eye(111) || eye(129) {
        [40, 30, 30]
    } else if head && y < 42 {
        [60, 40, 30]
    } else if head {
        [220, 170, 140]
    } else if (x - 120).abs() < 11 && y > 70 && y < 112 {
        [200, 150, 125]
    } else if ellipse(120, 150, 4, 9, 140) {
        [40, 50, 110]
    } else {
        [90 + column * 60 / 255, 120 + y * 60 / 143, 150]
    };
    pixel.map(|value| value as u8)
}
