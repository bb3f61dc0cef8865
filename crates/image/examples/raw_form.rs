//! Makes the raw form of an image: `raw_form raw|qcow2 IMAGE OUT`. For measuring by hand.

#![allow(clippy::print_stdout, reason = "a tool for a terminal")]

use std::fs::File;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, format, image, out] = args.as_slice() else {
        return Err("usage: raw_form raw|qcow2 IMAGE OUT".into());
    };
    let image = image::Image::open(File::open(image)?, format.parse()?)?;
    let out = File::create(out)?;
    let start = Instant::now();
    let data = image::convert::to_raw(&image, &out, &mut |_| {}, &|| false)?;
    println!("{data} bytes of data in {:?}", start.elapsed());
    Ok(())
}
