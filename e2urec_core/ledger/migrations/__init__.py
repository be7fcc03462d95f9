"""The steps that bring a ledger's schema up to date, one file a step; a step that was released is never edited."""
