//! Work that is cut short, by a kill or by the power, and the judgement on what is there afterwards.
//!
//! A [`child`] works in a folder: threads append at all levels of durability, to topics that keep everything, that keep
//! a number of bytes, that records are deleted from, and to one that comes and goes; a consumer commits. It tells every
//! acknowledgement over a pipe once the call has returned ([`message`]). Somebody ends it at a moment that is drawn;
//! then the parent, or the next child, opens the folder. The [`ledger`] knows what was acknowledged, and what of it had
//! to be on the device, and judges what is there.
//!
//! Each test brings `main` and the way in which it ends a child.

// Each test uses a part of it.
#![allow(dead_code)]

pub(crate) mod child;
mod consume;
pub(crate) mod delete;
pub(crate) mod ledger;
pub(crate) mod message;
pub(crate) mod parent;
pub(crate) mod plan;
mod scratch;
mod writers;
