use std::cell::RefCell;

use http::HeaderValue;

/// How many numbers each thread keeps.
const KEPT: usize = 64;

thread_local! {
    static VALUES: RefCell<[Option<(u64, HeaderValue)>; KEPT]> = const { RefCell::new([const { None }; KEPT]) };
}

/// The header value of a number. Timeouts and durations come again and again: those of late are kept, and
/// cost no allocation.
#[must_use]
pub fn number_value(number: u64) -> HeaderValue {
    VALUES.with_borrow_mut(|values| {
        let kept = &mut values[number as usize % KEPT];
        match kept {
            Some((of, value)) if *of == number => value.clone(),
            _ => {
                let value = HeaderValue::from(number);
                *kept = Some((number, value.clone()));
                value
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{KEPT, number_value};

    #[test]
    fn every_number_is_itself_however_often() {
        let apart = KEPT as u64;
        for number in [0, 7, 7, 7 + apart, 7, 5000, u64::MAX, 0] {
            assert_eq!(number_value(number), number.to_string());
        }
    }
}
