"""What scorer and reassessor share: how transactions are decided on, explained and put into records, and the releases that decide."""
