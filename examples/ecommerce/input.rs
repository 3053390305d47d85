//! Input: CSV files as lines, and lines as invoices.
//!
//! Everything that can be wrong with the files as such (missing, no column of that name) is found before anything is
//! created. What is wrong with a single line is for the [rules](crate::rules) to say.

use std::{
    fs, io, iter,
    path::{Path, PathBuf},
    sync::Arc,
};

use csv::{ByteRecord, Position, ReaderBuilder, StringRecord};

use crate::Result;

/// The columns that are used. A file may have more of them, in any order.
#[derive(Clone, Copy)]
pub(crate) enum Column {
    InvoiceNo,
    StockCode,
    Quantity,
    UnitPrice,
    CustomerId,
    Country,
}

/// Their names in the first line of a file, in the order of [`Column`].
const NAMES: [&str; 6] = ["InvoiceNo", "StockCode", "Quantity", "UnitPrice", "CustomerID", "Country"];

/// What is wrong with an input file, or with where it should be.
#[derive(Debug, thiserror::Error)]
enum InputError {
    #[error("can't read orders from {}", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the folder {} holds no CSV file", .path.display())]
    NoFiles { path: PathBuf },
    #[error("{} has no column {column:?}", .path.display())]
    NoColumn { path: PathBuf, column: &'static str },
    #[error("can't read the columns of {}", .path.display())]
    Malformed { path: PathBuf, source: csv::Error },
}

/// One line of an order, a refund, or something else.
pub(crate) struct Line {
    /// The file's name without its folder: with the number, the line's identity.
    pub(crate) file: Arc<str>,
    /// Its number in the file, counted from one with the line of column names.
    pub(crate) number: u64,
    fields: StringRecord,
    columns: [usize; NAMES.len()],
}

impl Line {
    /// A line that no file holds, of the columns that are used.
    pub(crate) fn new(file: Arc<str>, number: u64, fields: [&str; NAMES.len()]) -> Self {
        Self { file, number, fields: StringRecord::from(&fields[..]), columns: [0, 1, 2, 3, 4, 5] }
    }

    /// What stands in a column; nothing if the line is too short.
    pub(crate) fn get(&self, column: Column) -> &str {
        self.fields.get(self.columns[column as usize]).unwrap_or_default()
    }

    /// The line as a CSV file would have it.
    pub(crate) fn to_csv(&self) -> Result<Vec<u8>> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(&self.fields)?;
        Ok(writer.into_inner()?)
    }
}

/// Finds the files at `path` (one file, or the CSV files of a folder in the order of their names) and checks that each
/// can be read and has the columns.
pub(crate) fn find_files(path: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |source| InputError::Unreadable { path: path.to_owned(), source };
    let mut files = vec![path.to_owned()];
    if fs::metadata(path).map_err(unreadable)?.is_dir() {
        let entries = fs::read_dir(path).map_err(unreadable)?.collect::<io::Result<Vec<_>>>().map_err(unreadable)?;
        files = entries.iter().map(fs::DirEntry::path).filter(|path| is_csv(path)).collect();
        files.sort();
    }
    if files.is_empty() {
        return Err(InputError::NoFiles { path: path.to_owned() }.into());
    }
    for file in &files {
        columns(file, io::BufReader::new(open(file)?))?;
    }
    Ok(files)
}

fn is_csv(path: &Path) -> bool {
    // A link that leads nowhere is no folder: opening it will tell.
    !path.is_dir() && path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"))
}

fn open(path: &Path) -> Result<fs::File> {
    Ok(fs::File::open(path).map_err(|source| InputError::Unreadable { path: path.to_owned(), source })?)
}

/// Where the columns are in a file.
fn columns(path: &Path, content: impl io::Read) -> Result<[usize; NAMES.len()]> {
    let malformed = |source| InputError::Malformed { path: path.to_owned(), source };
    let mut reader = ReaderBuilder::new().flexible(true).from_reader(content);
    let names = reader.byte_headers().map_err(malformed)?;
    let mut columns = [0; NAMES.len()];
    for (column, name) in columns.iter_mut().zip(NAMES) {
        let found = names.iter().position(|found| found == name.as_bytes());
        *column = found.ok_or_else(|| InputError::NoColumn { path: path.to_owned(), column: name })?;
    }
    Ok(columns)
}

/// All lines of a file below its column names.
pub(crate) fn lines(path: &Path) -> Result<impl Iterator<Item = Line> + use<>> {
    let name: Arc<str> = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into();
    let content = fs::read(path).map_err(|source| InputError::Unreadable { path: path.to_owned(), source })?;
    let columns = columns(path, &*content)?;
    let mut numbers = LineNumbers::default();
    let mut reader = ReaderBuilder::new().flexible(true).from_reader(io::Cursor::new(content));
    let mut record = ByteRecord::new();
    Ok(iter::from_fn(move || {
        // Neither reading memory nor a line of any length or bytes can fail.
        let more = reader.read_byte_record(&mut record).unwrap_or(false);
        let number = numbers.at(reader.get_ref().get_ref(), record.position().map_or(0, Position::byte));
        let fields = StringRecord::from_byte_record_lossy(record.clone());
        more.then(|| Line { file: name.clone(), number, fields, columns })
    }))
}

/// Counts lines. The CSV reader's own count falls behind by one where lines end in CR LF, and takes the first of some
/// empty lines for the one that it reads.
#[derive(Default)]
struct LineNumbers {
    counted: usize,
    breaks: u64,
}

impl LineNumbers {
    /// The number of the line that holds the first byte at or behind `position` that isn't a line break.
    fn at(&mut self, content: &[u8], position: u64) -> u64 {
        let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let mut start = usize::try_from(position).map_or(content.len(), |position| position.min(content.len()));
        start += content[start..].iter().take_while(|byte| is_break(byte)).count();
        for at in self.counted..start {
            let half_of_two = content[at] == b'\r' && content.get(at + 1) == Some(&b'\n');
            self.breaks += u64::from(is_break(&content[at]) && !half_of_two);
        }
        self.counted = start;
        self.breaks + 1
    }
}

/// Joins neighbouring lines of one file and invoice number.
pub(crate) fn invoices(lines: impl Iterator<Item = Line>) -> impl Iterator<Item = Vec<Line>> {
    let mut lines = lines.peekable();
    iter::from_fn(move || {
        let mut invoice = vec![lines.next()?];
        let number = invoice[0].get(Column::InvoiceNo).to_owned();
        while let Some(line) = lines.next_if(|next| next.get(Column::InvoiceNo) == number) {
            invoice.push(line);
        }
        Some(invoice)
    })
}
