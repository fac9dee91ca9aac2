// A digit read in Rust, through the C interface, without bindgen or crates.
//
//   lucid compile resnest_digits --emit so --embed -o out/
//   rustc examples/c/digits.rs -C link-arg=out/resnest_digits.so -C link-arg=-Wl,-rpath,$PWD/out
//   ./digits digit.raw        (1024 floats: 32 x 32 pixels, normalised)
use std::ffi::{c_char, c_int, c_void, CStr};

/// The structures and functions of resnest_digits.h that are used here.
mod ffi {
    use super::*;

    #[repr(C)]
    pub struct Options {
        pub weights: *const c_char,
        pub threads: c_int,
        pub max_calls: c_int,
        pub level: *const c_char,
    }

    #[repr(C)]
    pub struct Input {
        pub data: *const c_void,
        pub bytes: usize,
        pub shape: *const i64,
    }

    #[repr(C)]
    pub struct Output {
        pub data: *mut c_void,
        pub bytes: usize,
    }

    extern "C" {
        pub fn resnest_digits_create(options: *const Options, model: *mut *mut c_void) -> c_int;
        pub fn resnest_digits_run(
            model: *mut c_void,
            inputs: *const Input,
            input_count: usize,
            outputs: *const Output,
            output_count: usize,
        ) -> c_int;
        pub fn resnest_digits_destroy(model: *mut c_void);
        pub fn resnest_digits_error(status: c_int) -> *const c_char;
    }
}

fn check(status: c_int) -> Result<(), String> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: the text is static, and never null.
    let text = unsafe { CStr::from_ptr(ffi::resnest_digits_error(status)) };
    Err(text.to_string_lossy().into_owned())
}

/// A model; any number of threads may call `run` at once.
struct Model(*mut c_void);

// SAFETY: the library says so.
unsafe impl Send for Model {}
unsafe impl Sync for Model {}

impl Model {
    fn new(threads: c_int) -> Result<Model, String> {
        let null = std::ptr::null();
        let options = ffi::Options { weights: null, threads, max_calls: 0, level: null };
        let mut model = std::ptr::null_mut();
        // SAFETY: both pointers are to values that live through the call.
        check(unsafe { ffi::resnest_digits_create(&options, &mut model) })?;
        Ok(Model(model))
    }

    fn run(&self, images: &[f32], batch: i64) -> Result<Vec<f32>, String> {
        let shape = [batch, 1, 32, 32];
        let mut scores = vec![0f32; 10 * batch as usize];
        let input = ffi::Input {
            data: images.as_ptr().cast(),
            bytes: std::mem::size_of_val(images),
            shape: shape.as_ptr(),
        };
        let output = ffi::Output {
            data: scores.as_mut_ptr().cast(),
            bytes: std::mem::size_of_val(&scores[..]),
        };
        // SAFETY: sizes are those of the slices, and the library checks them against the shape.
        check(unsafe { ffi::resnest_digits_run(self.0, &input, 1, &output, 1) })?;
        Ok(scores)
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: nobody borrows the model any more, so no call is running.
        unsafe { ffi::resnest_digits_destroy(self.0) }
    }
}

fn main() -> Result<(), String> {
    let path = std::env::args().nth(1).ok_or("give a file of 1024 floats")?;
    let bytes = std::fs::read(&path).map_err(|problem| format!("{path}: {problem}"))?;
    let pixels: Vec<f32> = bytes
        .chunks_exact(4)
        .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
        .collect();
    let scores = Model::new(2)?.run(&pixels, 1)?;
    let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    println!("{}", best.ok_or("no scores")?);
    Ok(())
}
