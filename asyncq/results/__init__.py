"""What is known of a scenario: by simulation (`run`), by theory (`prediction`), and the advice that follows."""
