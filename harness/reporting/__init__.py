"""What a report shows beyond the records: policies as diagrams, questions' texts and frames, the page's contents."""
