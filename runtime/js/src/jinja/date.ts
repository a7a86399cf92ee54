const MONTHS = ['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October', 'November', 'December'];
const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];

/** `datetime.now().strftime(format)` in the C locale: local time, whose zone it does not write. */
export function strftime(format: string, date: Date): string {
  return format.replace(/%([-_0^#]*)(\d*)[EO]?([^]?)/gu, (directive, flags: string, width: string, letter: string) => {
    const written = directiveOf(letter, date);
    if (written === undefined) return directive;
    const [digits, fill] = typeof written === 'string' ? [written, ''] : [String(written[0]), written[2] ?? '0'];
    const filler = flags.includes('-') ? '' : flags.includes('_') ? ' ' : flags.includes('0') ? '0' : fill;
    const padded = digits.padStart(Number(width) || (typeof written === 'string' || filler === '' ? 0 : written[1]), filler || (typeof written === 'string' ? ' ' : '0'));
    return flags.includes('^') ? padded.toUpperCase() : padded;
  });
}

/** A text, or a number with its width and what fills it. */
function directiveOf(letter: string, date: Date): string | [number, number, string?] | undefined {
  const [year, month, day, weekday, hour] = [date.getFullYear(), date.getMonth(), date.getDate(), date.getDay(), date.getHours()];
  const whole = (format: string) => strftime(format, date);
  const dayOfYear = Math.round((Date.UTC(year, month, day) - Date.UTC(year, 0, 1)) / 86_400_000) + 1;
  const [isoYear, isoWeek] = isoDate(year, dayOfYear, weekday);
  switch (letter) {
    case 'Y': return [year, 4];
    case 'C': return [Math.floor(year / 100), 2];
    case 'y': return [year % 100, 2];
    case 'm': return [month + 1, 2];
    case 'B': return MONTHS[month]!;
    case 'b': case 'h': return MONTHS[month]!.slice(0, 3);
    case 'd': return [day, 2];
    case 'e': return [day, 2, ' '];
    case 'j': return [dayOfYear, 3];
    case 'A': return DAYS[weekday]!;
    case 'a': return DAYS[weekday]!.slice(0, 3);
    case 'u': return [weekday || 7, 1];
    case 'w': return [weekday, 1];
    case 'U': return [Math.floor((dayOfYear + 6 - weekday) / 7), 2];
    case 'W': return [Math.floor((dayOfYear + 6 - ((weekday + 6) % 7)) / 7), 2];
    case 'V': return [isoWeek, 2];
    case 'G': return [isoYear, 4];
    case 'g': return [isoYear % 100, 2];
    case 'H': return [hour, 2];
    case 'k': return [hour, 2, ' '];
    case 'I': return [(hour + 11) % 12 + 1, 2];
    case 'l': return [(hour + 11) % 12 + 1, 2, ' '];
    case 'M': return [date.getMinutes(), 2];
    case 'S': return [date.getSeconds(), 2];
    case 'f': return [date.getMilliseconds() * 1000, 6];
    case 's': return [Math.floor(date.getTime() / 1000), 1];
    case 'p': return hour < 12 ? 'AM' : 'PM';
    case 'P': return hour < 12 ? 'am' : 'pm';
    case 'D': case 'x': return whole('%m/%d/%y');
    case 'F': return whole('%Y-%m-%d');
    case 'T': case 'X': return whole('%H:%M:%S');
    case 'R': return whole('%H:%M');
    case 'r': return whole('%I:%M:%S %p');
    case 'c': return whole('%a %b %e %H:%M:%S %Y');
    case 'z': case 'Z': return '';
    case 'n': return '\n';
    case 't': return '\t';
    case '%': return '%';
    default: return undefined;
  }
}

/** The week by ISO 8601, and the year it belongs to. */
function isoDate(year: number, dayOfYear: number, weekday: number): [year: number, week: number] {
  const week = Math.floor((dayOfYear - (weekday || 7) + 10) / 7);
  const weeksOf = (year: number) => {
    const last = (year: number) => (year + Math.floor(year / 4) - Math.floor(year / 100) + Math.floor(year / 400)) % 7;
    return last(year) === 4 || last(year - 1) === 3 ? 53 : 52;
  };
  if (week < 1) return [year - 1, weeksOf(year - 1)];
  return week > weeksOf(year) ? [year + 1, 1] : [year, week];
}
