//! What callers may say of the host that they mean. [`lenient`] stands for itself: the harness takes it in, for a driver
//! that a kubelet is to register.

mod lenient;

pub(crate) use self::lenient::Lenient;

#[cfg(test)]
mod tests;
