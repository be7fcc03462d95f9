"""What a table is: columns, types and rules as frozen data. The bottom of the house; pyarrow and the standard library only."""
