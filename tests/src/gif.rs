//! Draws `guests/hd/party-wizard.gif`, the file that every example of this project serves.
//!
//! GIF89a (W3C, 1990): a palette, a loop, and for each frame its pixels in LZW.

const WIDTH: u16 = 64;
const HEIGHT: u16 = 64;
const FRAMES: u16 = 8;
/// Hundredths of a second that each frame is shown.
const DELAY: u16 = 12;
/// Eight colours: night, robe, hat, skin, beard, gold, wand, spark.
const PALETTE: [[u8; 3]; 8] = [
    [16, 16, 40],
    [70, 50, 160],
    [100, 70, 210],
    [240, 200, 160],
    [240, 240, 250],
    [255, 210, 60],
    [120, 80, 40],
    [255, 90, 160],
];

/// The animated wizard, the same bytes each time.
pub fn party_wizard() -> Vec<u8> {
    let mut gif = b"GIF89a".to_vec();
    gif.extend(WIDTH.to_le_bytes());
    gif.extend(HEIGHT.to_le_bytes());
    // A global table of 2^(2+1) colours, background 0, square pixels.
    gif.extend([0b1111_0010, 0, 0]);
    gif.extend(PALETTE.concat());
    gif.extend(b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00");
    for frame in 0..FRAMES {
        gif.extend([0x21, 0xf9, 4, 0b0000_0100]);
        gif.extend(DELAY.to_le_bytes());
        gif.extend([0, 0, 0x2c, 0, 0, 0, 0]);
        gif.extend(WIDTH.to_le_bytes());
        gif.extend(HEIGHT.to_le_bytes());
        gif.push(0);
        let pixels: Vec<u8> = (0..HEIGHT)
            .flat_map(|y| {
                (0..WIDTH).map(move |x| colour(i32::from(x), i32::from(y), i32::from(frame)))
            })
            .collect();
        gif.extend(lzw(&pixels, 3));
    }
    gif.push(0x3b);
    gif
}

/// The colour of one pixel: the first shape from front to back that covers it.
fn colour(x: i32, y: i32, frame: i32) -> u8 {
    // He sways to one side and back, and jumps at both ends of it.
    let sway = [0, 2, 4, 2, 0, -2, -4, -2][usize::try_from(frame).unwrap_or(0) % 8];
    let jump = if frame % 4 == 2 { 4 } else { 0 };
    let (x, y) = (x - sway, y + jump);
    let disc = |cx: i32, cy: i32, r: i32| (x - cx).pow(2) + (y - cy).pow(2) <= r * r;
    let wand_up = if frame % 2 == 0 { 0 } else { 6 };
    let spark = (x * 7 + y * 13 + frame * 29).rem_euclid(61) == 0;
    let covers = [
        (disc(28, 27, 1) || disc(36, 27, 1), 0),
        (disc(32, 34, 2), 7),
        (disc(32, 12, 2), 5),
        ((6..=22).contains(&y) && (x - 32).abs() * 2 <= y - 4, 2),
        (y == 23 && (x - 32).abs() < 15, 5),
        (y > 30 && y < 44 && (x - 32).abs() * 3 <= 44 - y + 10, 4),
        (disc(32, 28, 8), 3),
        (
            (x - 46).abs() <= 1 && (26 - wand_up..=44 - wand_up).contains(&y),
            6,
        ),
        (disc(46, 24 - wand_up, 3), 5),
        ((36..60).contains(&y) && (x - 32).abs() * 3 <= y - 12, 1),
        (
            (60..62).contains(&y) && (disc(26, 60, 4) || disc(38, 60, 4)),
            6,
        ),
        (spark && y < 50, 7),
    ];
    covers
        .iter()
        .find(|(covered, _)| *covered)
        .map_or(0, |(_, colour)| *colour)
}

/// Pixels of `bits` bits in GIF's LZW: codes of growing width, in blocks of at most 255 bytes.
fn lzw(pixels: &[u8], bits: u8) -> Vec<u8> {
    let clear = 1_u16 << bits;
    let end = clear + 1;
    let mut codes = Codes {
        width: u32::from(bits) + 1,
        ..Codes::default()
    };
    let mut table = std::collections::HashMap::new();
    let mut next = end + 1;
    codes.push(clear);
    let mut prefix: Option<u16> = None;
    for &pixel in pixels {
        let Some(known) = prefix else {
            prefix = Some(u16::from(pixel));
            continue;
        };
        if let Some(&longer) = table.get(&(known, pixel)) {
            prefix = Some(longer);
            continue;
        }
        codes.push(known);
        if next == 4096 {
            // The table is full: begin anew.
            codes.push(clear);
            table.clear();
            next = end + 1;
            codes.width = u32::from(bits) + 1;
        } else {
            table.insert((known, pixel), next);
            if next == 1 << codes.width {
                codes.width += 1;
            }
            next += 1;
        }
        prefix = Some(u16::from(pixel));
    }
    codes.push(prefix.unwrap_or(0));
    codes.push(end);
    let mut out = vec![bits];
    for block in codes.finish().chunks(255) {
        out.push(u8::try_from(block.len()).expect("a chunk holds at most 255 bytes"));
        out.extend(block);
    }
    out.push(0);
    out
}

/// Codes packed from the lowest bit up.
#[derive(Default)]
struct Codes {
    bytes: Vec<u8>,
    pending: u32,
    filled: u32,
    width: u32,
}

impl Codes {
    fn push(&mut self, code: u16) {
        self.pending |= u32::from(code) << self.filled;
        self.filled += self.width;
        while self.filled >= 8 {
            self.bytes.push((self.pending & 0xff) as u8);
            self.pending >>= 8;
            self.filled -= 8;
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            self.bytes.push((self.pending & 0xff) as u8);
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An independent decoder for the codes of one frame.
    fn decode(data: &[u8]) -> Vec<u8> {
        let bits = u32::from(data[0]);
        let mut bytes: Vec<u8> = Vec::new();
        let mut at = 1;
        while data[at] != 0 {
            let length = usize::from(data[at]);
            bytes.extend(&data[at + 1..=at + length]);
            at += 1 + length;
        }
        let (clear, end) = (1_usize << bits, (1_usize << bits) + 1);
        let fresh = || {
            (0..clear)
                .map(|value| vec![u8::try_from(value).unwrap()])
                .chain([vec![], vec![]])
                .collect::<Vec<_>>()
        };
        let (mut table, mut width, mut position) = (fresh(), bits + 1, 0);
        let (mut previous, mut pixels): (Option<Vec<u8>>, Vec<u8>) = (None, Vec::new());
        loop {
            let code = (0..width).fold(0, |code, bit| {
                let at = position + bit as usize;
                code | usize::from(bytes[at / 8] >> (at % 8) & 1) << bit
            });
            position += width as usize;
            if code == end {
                return pixels;
            }
            if code == clear {
                (table, width, previous) = (fresh(), bits + 1, None);
                continue;
            }
            let entry = match (&previous, table.get(code)) {
                (_, Some(known)) => known.clone(),
                (Some(last), None) => [last.as_slice(), &last[..1]].concat(),
                (None, None) => panic!("code {code} before its entry"),
            };
            if let Some(last) = previous {
                if table.len() < 4096 {
                    table.push([last.as_slice(), &entry[..1]].concat());
                }
                if table.len() == 1 << width && width < 12 {
                    width += 1;
                }
            }
            pixels.extend(&entry);
            previous = Some(entry);
        }
    }

    #[test]
    fn pixels_survive_the_compression() {
        let mut noise = 1_u32;
        let noisy: Vec<u8> = (0..60_000)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (noise >> 29) as u8
            })
            .collect();
        for pixels in [vec![0], vec![5; 4096], noisy] {
            assert_eq!(decode(&lzw(&pixels, 3)), pixels);
        }
    }

    #[test]
    fn the_wizard_is_an_animation_that_moves() {
        let gif = party_wizard();
        assert!(gif.starts_with(b"GIF89a") && gif.ends_with(b"\x3b"));
        let frame = |n| {
            (0..64)
                .flat_map(|y| (0..64).map(move |x| colour(x, y, n)))
                .collect::<Vec<u8>>()
        };
        assert_ne!(frame(0), frame(2));
        assert!(frame(0).contains(&4), "he has a beard");
    }
}
