// SPDX-License-Identifier: MPL-2.0

//! Videos as phones store them.

/// An MP4 whose video is marked as rotated by 90 degrees, in the matrix of its track header (`tkhd`), as phones do.
pub fn rotated(mp4: &[u8]) -> Vec<u8> {
    const MATRIX: [i32; 9] = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30];
    let mut rotated = mp4.to_vec();
    let headers = mp4.windows(4).enumerate().filter(|(_, bytes)| *bytes == b"tkhd").map(|(at, _)| at + 4);
    for header in headers {
        let matrix = header + if mp4[header] == 0 { 40 } else { 52 };
        let has_width = mp4[matrix + 36..][..4] != [0; 4];
        if has_width {
            let bytes: Vec<u8> = MATRIX.iter().flat_map(|value| value.to_be_bytes()).collect();
            rotated[matrix..][..36].copy_from_slice(&bytes);
        }
    }
    assert_ne!(rotated, mp4);
    rotated
}
