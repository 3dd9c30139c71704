//! Moments as AWS writes them, always in UTC.

const DAY_S: u64 = 86_400;

/// `20150830T123600Z`, for seconds since the Unix epoch.
pub(super) fn basic(unix_s: u64) -> String {
    let (year, month, day) = civil(unix_s / DAY_S);
    let rest = unix_s % DAY_S;
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

/// Seconds since the Unix epoch, of `2015-08-30T12:36:00Z`. `None`: the text is no such moment.
pub(super) fn parse(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, mark| -> Option<[u64; 3]> {
        let parts: Vec<u64> = text.split(mark).map(|part| part.parse().ok()).collect::<Option<_>>()?;
        parts.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    // Fractions of a second are nothing that a life of hours is measured in.
    let [hour, minute, second] = numbers(time.split('.').next()?, ':')?;
    let is_moment = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    is_moment.then(|| days(year, month, day) * DAY_S + hour * 3_600 + minute * 60 + second)
}

// Both ways by Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": years begin in March, so that the leap day is the last.

fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    // Only before March 1970 the era's days would be fewer than those of the epoch, and no credential is that old.
    (era * 146_097 + day_of_era).saturating_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        for (unix, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_440_938_160, "2015-08-30T12:36:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(parse(text), Some(unix), "{text}");
            assert_eq!(basic(unix), text.replace(['-', ':'], ""));
        }
        assert_eq!(parse("2015-08-30T12:36:00.123Z"), Some(1_440_938_160));
        for text in ["", "2015-08-30", "2015-13-30T12:36:00Z", "2015-08-30T12:36:00+01:00", "aT1:2:3Z"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
