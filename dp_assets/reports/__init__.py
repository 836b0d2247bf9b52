"""Pictures and pages of all reports."""
