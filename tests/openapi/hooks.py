"""What JSON Schema cannot say of a valid request: such cases are left out, because 400 is right."""

import schemathesis

FIELD_MAX = 200
# A key must expire by 2106-02-07. From any day before 2028, so many days end before that date.
DAYS_MAX = 28000
UNITS = {"d": 1, "w": 7, "m": 30, "y": 365}


def is_expressible(name, value):
    if name in ("name_email", "name_real", "name_comment") and isinstance(value, str):
        if len(value.encode("utf-8", "replace")) > FIELD_MAX:
            return False
    if name == "name_email" and isinstance(value, str):
        return not value.endswith(".lock") and not value.startswith((".", "-"))
    if name == "name_real" and isinstance(value, str):
        return not value or bool(value.strip())
    if name == "expire" and isinstance(value, (int, float, str)):
        text = str(value)
        digits, days = (text[:-1], UNITS[text[-1]]) if text[-1:] in UNITS else (text, 1)
        return not (digits.isdecimal() and DAYS_MAX < int(digits) * days <= 49710 or
                    isinstance(value, str) and digits.isdecimal() and int(digits) * days > DAYS_MAX)
    return True


@schemathesis.hook
def filter_case(context, case):
    parts = (case.body, case.path_parameters)
    return all(
        is_expressible(name, value)
        for part in parts
        if isinstance(part, dict)
        for name, value in part.items()
    )
