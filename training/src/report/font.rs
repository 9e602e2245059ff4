//! A font of 3x5 pixels for captions, so that a contact sheet needs no font file.

/// Width of a glyph.
pub const WIDTH: usize = 3;
/// Height of a glyph.
pub const HEIGHT: usize = 5;

/// The five rows of a character, the leftmost pixel in bit 2. Letters have no case; what is not in
/// the font is a blank.
pub fn glyph(character: char) -> [u8; HEIGHT] {
    let rows = match character.to_ascii_uppercase() {
        '0' => "### #.# #.# #.# ###",
        '1' => ".#. ##. .#. .#. ###",
        '2' => "##. ..# .#. #.. ###",
        '3' => "##. ..# .#. ..# ##.",
        '4' => "#.# #.# ### ..# ..#",
        '5' => "### #.. ##. ..# ##.",
        '6' => ".## #.. ### #.# ###",
        '7' => "### ..# .#. .#. .#.",
        '8' => "### #.# ### #.# ###",
        '9' => "### #.# ### ..# ##.",
        'A' => ".#. #.# ### #.# #.#",
        'B' => "##. #.# ##. #.# ##.",
        'C' => ".## #.. #.. #.. .##",
        'D' => "##. #.# #.# #.# ##.",
        'E' => "### #.. ##. #.. ###",
        'F' => "### #.. ##. #.. #..",
        'G' => ".## #.. #.# #.# .##",
        'H' => "#.# #.# ### #.# #.#",
        'I' => "### .#. .#. .#. ###",
        'J' => "..# ..# ..# #.# .#.",
        'K' => "#.# #.# ##. #.# #.#",
        'L' => "#.. #.. #.. #.. ###",
        'M' => "#.# ### ### #.# #.#",
        'N' => "##. #.# #.# #.# #.#",
        'O' => ".#. #.# #.# #.# .#.",
        'P' => "##. #.# ##. #.. #..",
        'Q' => ".#. #.# #.# ##. .##",
        'R' => "##. #.# ##. #.# #.#",
        'S' => ".## #.. .#. ..# ##.",
        'T' => "### .#. .#. .#. .#.",
        'U' => "#.# #.# #.# #.# ###",
        'V' => "#.# #.# #.# #.# .#.",
        'W' => "#.# #.# ### ### #.#",
        'X' => "#.# #.# .#. #.# #.#",
        'Y' => "#.# #.# .#. .#. .#.",
        'Z' => "### ..# .#. #.. ###",
        '-' => "... ... ### ... ...",
        '_' => "... ... ... ... ###",
        '.' => "... ... ... ... .#.",
        ':' => "... .#. ... .#. ...",
        '/' => "..# ..# .#. #.. #..",
        '%' => "#.# ..# .#. #.. #.#",
        '&' => ".#. #.# .#. #.# .##",
        _ => "... ... ... ... ...",
    };
    let mut glyph = [0; HEIGHT];
    for (bits, row) in glyph.iter_mut().zip(rows.split(' ')) {
        *bits = row.bytes().fold(0, |bits, pixel| bits << 1 | u8::from(pixel == b'#'));
    }
    glyph
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glyphs() {
        assert_eq!(glyph('7'), [0b111, 0b001, 0b010, 0b010, 0b010]);
        assert_eq!(glyph('f'), glyph('F'));
        assert_eq!(glyph('€'), [0; 5]);
    }

    #[test]
    fn every_glyph_is_three_by_five_and_no_two_are_alike() {
        let characters: Vec<char> = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_.:/%&".chars().collect();
        for (i, &a) in characters.iter().enumerate() {
            assert!(glyph(a).iter().all(|&row| row < 8) && glyph(a) != [0; 5], "{a}");
            for &b in &characters[i + 1..] {
                assert_ne!(glyph(a), glyph(b), "{a} and {b}");
            }
        }
    }
}
