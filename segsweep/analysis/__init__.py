"""Why a number is what it is: matches, errors, slices, calibration."""
