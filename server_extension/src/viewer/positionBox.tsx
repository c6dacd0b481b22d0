// A box beside a slider: a position is typed, and asked for when it is one.
import { type ReactElement, useEffect, useState } from 'react';

interface Properties {
  /** The element that names the dimension. */
  labelledBy: string;
  value: number;
  length: number;
  onChange: (value: number) => void;
}

export function PositionBox({ labelledBy, value, length, onChange }: Properties): ReactElement {
  const [text, setText] = useState(String(value));
  useEffect(() => setText(String(value)), [value]);
  return (
    <input
      type="number"
      className="c2v-position"
      aria-labelledby={labelledBy}
      min={0}
      max={length - 1}
      value={text}
      onChange={event => {
        setText(event.target.value);
        const typed = event.target.valueAsNumber;
        if (Number.isInteger(typed) && typed >= 0 && typed < length) {
          onChange(typed);
        }
      }}
      onBlur={() => setText(String(value))}
    />
  );
}
