//! Files of another time or place where they don't belong: stale ones, restored backups, copies, other partitions' and
//! other logs'.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use tidelog::ErrorKind;

use crate::{
    ground::{Content, Ground, Image},
    harm::{Change, Commits, Expected, Harm},
    sweep::Extent,
    written::{COMMITS, FOLDER, OTHER_FOLDER, frames_of},
};

/// Moments of which there are copies: when the partition had so many segments.
const MOMENTS: [usize; 3] = [1, 2, 3];

pub(crate) fn swaps(ground: &Ground, _: &Extent) -> Vec<Harm> {
    let mut harms = Vec::new();
    for moment in MOMENTS {
        let image = ground.moment(moment);
        harms.extend(stale_files(ground, &image));
        harms.extend(backups(&image));
    }
    harms.extend(foreign(ground));
    harms
}

/// The words of a control page that say who its file is, and their check (`src/doc/format.md`).
const PAGE_IDENTITY: Range<usize> = 8..72;

/// One file is that of an earlier moment: a copy, or the very file.
fn stale_files(ground: &Ground, image: &Image) -> Vec<Harm> {
    let mut harms = Vec::new();
    for (path, content) in image.iter().filter(|(path, _)| path.starts_with(FOLDER)) {
        let Some(content) = content else { continue };
        let expected = match ground.written.segments.iter().position(|segment| segment.path == *path) {
            None => Expected::nothing(),
            Some(at) => stale_segment(ground, at, content),
        };
        harms.push(Harm::new(path, Change::Replace(content.clone()), expected.clone()));
        harms.push(Harm::new(path, Change::Overwrite(content.clone()), expected));
    }
    harms
}

/// A segment of an earlier moment: it ends earlier, and what was behind is missing.
fn stale_segment(ground: &Ground, at: usize, content: &Content) -> Expected {
    let segment = &ground.written.segments[at];
    let had = frames_of(&content.whole()).len();
    let last = at + 1 == ground.written.segments.len();
    let lost = segment.frames[had..].iter().map(|frame| frame.offsets.clone()).collect();
    Expected { lost, may_cut: last, ..Expected::nothing() }
}

/// A whole folder is that of an earlier moment: all that it holds is there, and nothing is cut. Of what came later nobody
/// knows.
fn backups(image: &Image) -> Vec<Harm> {
    let end = end_of(image);
    // The last of the commits that were made by then.
    let commits = Commits::Are(COMMITS.into_iter().rfind(|&offset| offset <= end));
    let records = Expected { ended_at: Some(end), ..Expected::nothing() };
    let all = Expected { commits, ..records.clone() };
    vec![
        Harm::new(FOLDER, Change::Folder(folder(image, FOLDER)), records),
        Harm::new(
            "__offsets-0",
            Change::Folder(folder(image, "__offsets-0")),
            Expected { commits, ..Expected::nothing() },
        ),
        Harm::new("", Change::Folder(image.clone()), all),
    ]
}

/// Where the partition ends in an image: behind the last frame of all its segments.
fn end_of(image: &Image) -> u64 {
    let segments = image.iter().filter(|(path, _)| path.starts_with(FOLDER) && is_segment(path));
    let frames = segments.flat_map(|(_, content)| frames_of(&content.as_ref().unwrap().whole()));
    frames.fold(0, |end, frame| {
        assert_eq!(frame.offsets.start, end, "an image without holes");
        frame.offsets.end
    })
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "log")
}

/// What belongs to another partition, another log, or a deleted topic of the same name.
fn foreign(ground: &Ground) -> Vec<Harm> {
    let corruption = || Expected { refused: Some(ErrorKind::Corruption), ..Expected::nothing() };
    let orphaned = || Expected { orphaned: true, ..Expected::nothing() };
    let payments = folder(&ground.image, OTHER_FOLDER);
    let other = Ground::new(ground.ending);
    let mut harms = vec![
        // Copied over, and copied beside under another name.
        Harm::new(FOLDER, Change::Folder(payments.clone()), corruption()),
        Harm::new(FOLDER, Change::Folder(folder(&other.image, FOLDER)), corruption()),
        Harm::new("copies-0", Change::Folder(folder(&ground.image, FOLDER)), orphaned()),
        Harm::new("orders-1", Change::Folder(folder(&ground.image, FOLDER)), orphaned()),
        Harm::new("__offsets-0", Change::Folder(folder(&other.image, "__offsets-0")), corruption()),
        Harm::new("topics/copies.json", Change::Replace(file(&ground.image, "topics/orders.json")), corruption()),
        // Of the same name, deleted and created again: as the other log's is, by its id.
        Harm::new(
            Path::new(FOLDER).join("partition.checkpoint"),
            Change::Replace(file(&other.image, "orders-0/partition.checkpoint")),
            corruption(),
        ),
    ];
    harms.extend(foreign_pages(ground, &other));
    for (at, segment) in ground.written.segments.iter().enumerate() {
        let lost = vec![segment.frames[0].offsets.start..segment.frames.last().unwrap().offsets.end];
        for bytes in [other.written.segments[at].bytes.clone(), first_segment(&payments)] {
            let len = bytes.len() as u64;
            let change = Change::Replace(Content { bytes, len });
            let expected = Expected { lost: lost.clone(), ..Expected::nothing() };
            harms.push(Harm::new(&segment.path, change, expected));
        }
        // Another segment of the same partition, under this one's name.
        let another = &ground.written.segments[(at + 1) % ground.written.segments.len()];
        let content = Content { bytes: another.bytes.clone(), len: another.bytes.len() as u64 };
        let expected = Expected { lost, ..Expected::nothing() };
        harms.push(Harm::new(&segment.path, Change::Replace(content), expected));
    }
    harms
}

/// Control pages of the other topic and of another log, as they were while these were in use. Nobody believes them: not in
/// a file of their own, not in ours, and not where they say that they are ours, since the segments that they name aren't.
fn foreign_pages(ground: &Ground, other: &Ground) -> Vec<Harm> {
    const NAME: &str = "partition.state";
    let path = Path::new(FOLDER).join(NAME);
    let in_use = ground.moment(MOMENTS[2]);
    if !in_use.contains_key(&path) {
        return Vec::new(); // Where appends go by `pwrite`, pages live in memory.
    }
    let own = file(&in_use, &path).whole();
    let pages = [file(&in_use, Path::new(OTHER_FOLDER).join(NAME)), file(&other.moment(MOMENTS[2]), &path)];
    let mut harms = Vec::new();
    for page in pages {
        let mut forged = page.whole();
        forged[PAGE_IDENTITY].copy_from_slice(&own[PAGE_IDENTITY]);
        let forged = Content { bytes: forged, len: page.len };
        let changes = [Change::Replace(page.clone()), Change::Overwrite(page), Change::Overwrite(forged)];
        harms.extend(changes.map(|change| Harm::new(&path, change, Expected::nothing())));
    }
    harms
}

fn first_segment(folder: &Image) -> Vec<u8> {
    let mut found = folder.iter().filter(|(path, _)| is_segment(path));
    found.next().unwrap().1.clone().unwrap().bytes
}

fn file(image: &Image, path: impl AsRef<Path>) -> Content {
    image[path.as_ref()].clone().unwrap()
}

/// What is in a folder, by the paths in that.
fn folder(image: &Image, name: &str) -> Image {
    let inner = image.iter().filter_map(|(path, content)| {
        let path: PathBuf = path.strip_prefix(name).ok()?.into();
        (!path.as_os_str().is_empty()).then(|| (path, content.clone()))
    });
    inner.collect()
}
